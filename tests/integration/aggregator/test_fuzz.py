"""A few of the sequences of calls that e2e makes ten thousand of."""

from hypothesis import given, settings

from tests.fuzzing import PLAYED, SEQUENCES, target

FEW = settings(PLAYED, max_examples=100, derandomize=True)


def test_a_server_answers_every_sequence_of_calls_and_goes_on(tmp_path):
    with target(tmp_path) as aggregator:

        @FEW
        @given(sequence=SEQUENCES)
        def play(sequence):
            aggregator.play(sequence)
            aggregator.still_serves()

        play()
        aggregator.finishes_a_run()
        assert aggregator.answers["OK"]
        assert len(aggregator.answers) > 5, aggregator.answers
