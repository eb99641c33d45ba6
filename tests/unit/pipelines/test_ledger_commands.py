"""`deerfield ledger` as its users meet it: real ledgers, the real command, exit codes and sentences."""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from math import inf
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typer.testing import CliRunner

from deerfield import durable, keyfile
from deerfield.attestation import countersign, public_key
from deerfield.ledger.account import fold
from deerfield.ledger.chain import first_damage, lines_of
from deerfield.ledger.entry import plain
from deerfield.ledger.statement import rows
from deerfield.record import decode, encode
from deerfield.types import Attestation, Countersigned
from pipelines import cli
from services.client.agreed import Agreed
from services.client.ledger_file import NAME, Ledger
from services.client.vault import Vault
from tests.attesting import key_of
from tests.ledgers import RENYI, TERMS, key, plan

AGGREGATOR = key_of("the aggregator")


def deerfield(*arguments: object):
    """The command in this process: (exit code, what it printed). An error of deerfield is its sentence and code."""
    from deerfield.errors import DeerfieldError

    done = CliRunner().invoke(cli.app, [str(each) for each in arguments], env={"COLUMNS": "100"})
    if isinstance(done.exception, DeerfieldError):
        return done.exception.exit_code, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def state(folder: Path, terms=TERMS, runs=("r1",), rounds=2, **options) -> Path:
    """A site's state folder with one population, `rounds` of each run done and one begun."""
    vault = Vault(folder / "vault")
    with Ledger.open(
        folder / "ledgers" / terms.population, keyfile.load(folder / keyfile.SITE), terms, **options
    ) as ledger:
        for number, run in enumerate(runs):
            ledger.reserve_run(plan(run))
            for round in range(rounds):
                update = {"head.weight": np.full((2, 2), 10 * number + round, np.float32)}
                ledger.commit(ledger.reserve_task(key(round, run=run), 10), vault.put(update))
            ledger.reserve_task(key(rounds, run=run), 10)
    return folder


def ledger_of(folder: Path, population: str = "lungs") -> Path:
    return folder / "ledgers" / population / NAME


def chain(folder: Path):
    entries, damage = first_damage(lines_of(ledger_of(folder).read_bytes()))
    assert damage is None
    return entries


def record_of(folder: Path, signer=AGGREGATOR, **changes) -> Countersigned:
    """What the aggregator has seen of a ledger as it is now."""
    account = fold(chain(folder))
    seen = Attestation(
        **{
            **dict.fromkeys(("run", "update", "accountant"), "x"),
            **dict.fromkeys(("incarnation", "round", "phase"), 0),
            "site": "alpha",
            "population": "lungs",
            "spend": plan().spend(10),
            "epsilon_before": 0.0,
            "epsilon_after": account.epsilon,
            "delta_after": account.delta,
            "ledger_sequence": account.head.sequence,
            "ledger_head": account.head.hash,
            **changes,
        }
    )
    return countersign(signer, seen)


def test_a_sound_ledger_is_verified_in_one_line(tmp_path):
    code, said = deerfield("ledger", "verify", state(tmp_path))
    head = chain(tmp_path)[-1]
    assert code == 0
    assert said.count("\n") == 1
    assert said.startswith("sound: 7 entries, 1 run, epsilon ")
    assert f"head {head.sequence} {head.hash}" in said
    assert "2 updates as stored" in said


@pytest.mark.parametrize("entry", [0, 1, 3, 6])
def test_a_flipped_byte_is_named_with_its_entry_and_exits_1(tmp_path, entry):
    path = ledger_of(state(tmp_path))
    lines = path.read_bytes().split(b"\n")
    broken = bytearray(lines[entry])
    broken[len(broken) // 2] ^= 1
    lines[entry] = bytes(broken)
    path.write_bytes(b"\n".join(lines))
    code, said = deerfield("ledger", "verify", tmp_path)
    assert code == 1
    assert said.startswith(f"entry {entry}: ")
    assert "NOT sound" in said


def test_a_stored_update_that_changed_or_is_gone_is_found(tmp_path):
    state(tmp_path)
    one, other = sorted((tmp_path / "vault").iterdir())
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    other.unlink()
    code, said = deerfield("ledger", "verify", tmp_path)
    assert code == 1
    assert said.count("is not stored, or its content has changed") == 2
    assert one.stem in said
    assert other.stem in said


def test_the_key_can_be_pinned(tmp_path):
    state(tmp_path)
    mine = public_key(keyfile.load(tmp_path / keyfile.SITE))
    assert deerfield("ledger", "verify", tmp_path, "--key", mine)[0] == 0
    code, said = deerfield("ledger", "verify", tmp_path, "--key", public_key(AGGREGATOR))
    assert (code, said[:9]) == (1, "entry 0: ")
    assert deerfield("ledger", "verify", tmp_path, "--key", "abc")[0] == 2


def test_a_torn_last_line_is_said_to_be_one(tmp_path):
    path = ledger_of(state(tmp_path))
    path.write_bytes(path.read_bytes()[:-30])
    code, said = deerfield("ledger", "verify", tmp_path)
    assert code == 1
    assert "entry 6: its line has no end, as a crash leaves it" in said
    code, said = deerfield("ledger", "show", tmp_path, "--json")
    assert (code, len(json.loads(said)["entries"])) == (1, 6)


def test_show_as_json_says_what_the_ledger_says(tmp_path):
    state(tmp_path, runs=("r1", "r2"))
    code, said = deerfield("ledger", "show", tmp_path, "--json")
    told, account = json.loads(said), fold(chain(tmp_path))
    assert code == 0
    assert told["entries"] == plain([asdict(row) for row in rows(chain(tmp_path))])
    assert (told["epsilon_spent"], told["epsilon_left"]) == (account.epsilon, account.remaining)
    assert (told["site"], told["population"], told["unit"], told["runs"]) == ("alpha", "lungs", "patient", 2)
    assert told["head"] == asdict(account.head)


def test_show_says_infinite_for_good(tmp_path):
    state(tmp_path)
    with Ledger.open(ledger_of(tmp_path).parent, keyfile.load(tmp_path / keyfile.SITE), TERMS) as ledger:
        ledger.make_infinite("metrics: clear")
    assert json.loads(deerfield("ledger", "show", tmp_path, "--json")[1])["epsilon_spent"] == "infinity"
    said = deerfield("ledger", "show", tmp_path)[1]
    assert "nothing: epsilon is infinite for good" in said
    assert "metrics: clear" in said


def test_show_fits_eighty_columns_and_keeps_to_the_last_entries(tmp_path):
    state(tmp_path, runs=("r1", "r2"))
    done = CliRunner().invoke(cli.app, ["ledger", "show", str(tmp_path), "--last", "3"], env={"COLUMNS": "80"})
    assert max(map(len, done.output.splitlines())) <= 80
    assert "the last 3 of 13 entries" in done.output


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
@pytest.mark.parametrize("infinite", ["no", "from the start", "later"])
def test_a_burn_down_is_drawn(tmp_path, name, infinite):
    terms = replace(TERMS, unit="none", epsilon=inf) if infinite == "from the start" else TERMS
    state(tmp_path, terms, runs=() if infinite == "from the start" else ("r1",))
    if infinite == "later":
        with Ledger.open(ledger_of(tmp_path).parent, keyfile.load(tmp_path / keyfile.SITE), TERMS) as ledger:
            ledger.make_infinite("metrics: clear")
    code, _ = deerfield("ledger", "show", tmp_path, "--plot", tmp_path / name)
    assert code == 0
    assert (tmp_path / name).read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_the_burn_down_steps_down_to_what_is_left(tmp_path):
    from pipelines.burndown import figure
    from pipelines.ledgers import check, find

    checked = check(find(state(tmp_path, runs=("r1", "r2")), None))
    cap, left, marks = figure(checked).axes[0].lines
    assert list(cap.get_ydata()) == [8.0] * 13
    assert list(left.get_ydata()) == [row.remaining for row in checked.rows]
    assert list(marks.get_ydata()) == [row.remaining for row in checked.rows if row.kind == "run"]


def test_an_export_is_checked_by_hand_without_deerfield(tmp_path):
    """What the page tells an auditor to do."""
    state(tmp_path)
    assert deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")[0] == 0
    export, previous = json.loads((tmp_path / "audit.json").read_text()), "0" * 64
    signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(export["public_key"]))
    for line in export["entries"]:
        entry = json.loads(line)
        signature, value = entry.pop("signature"), entry.pop("hash")
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        assert sha256(text.encode()).hexdigest() == value
        signer.verify(bytes.fromhex(signature), b"deerfield ledger entry v1\n" + bytes.fromhex(value))
        assert entry["previous"] == previous
        previous = value
    assert export["head"]["hash"] == previous
    assert [run["updates"] for run in export["runs"]] == [2]
    assert {each["update"] for each in export["updates"]} == {path.stem for path in (tmp_path / "vault").iterdir()}
    assert export["verification"]["sound"]


def test_the_page_has_every_entry_and_no_address_elsewhere(tmp_path):
    state(tmp_path, runs=("r1", "<b>r2"))
    deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")
    page = (tmp_path / "audit.html").read_text()
    for entry in chain(tmp_path):
        assert f">{entry.hash[:16]}<" in page
    for address in ("http:", "https:", "//", "src=", "url(h", "@import"):
        assert address not in page
    assert "<svg" in page
    assert "<b>r2" not in page
    assert "Sound." in page


def test_an_export_is_verified_like_the_ledger_itself(tmp_path):
    state(tmp_path)
    deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit.json")
    code, said = deerfield("ledger", "verify", tmp_path / "audit.json")
    assert (code, "updates not at hand" in said) == (0, True)
    text = (tmp_path / "audit.json").read_text()
    (tmp_path / "audit.json").write_text(text.replace('\\"steps\\":10', '\\"steps\\":9', 1))
    assert deerfield("ledger", "verify", tmp_path / "audit.json")[0] == 1
    assert deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")[0] == 2  # nothing is overwritten


def test_a_damaged_ledger_is_exported_as_it_is_and_says_so(tmp_path):
    path = ledger_of(state(tmp_path))
    data = bytearray(path.read_bytes())
    place = data.rindex(b'"kind":"commit"')
    data[place] = 0xFF  # no text any more
    path.write_bytes(data)
    code, said = deerfield("ledger", "export", tmp_path, "--out", tmp_path / "audit")
    assert code == 1
    assert "not sound" in said
    assert "Not sound." in (tmp_path / "audit.html").read_text()
    again = deerfield("ledger", "verify", tmp_path / "audit.json")[1]
    assert again.splitlines()[:-1] == deerfield("ledger", "verify", ledger_of(tmp_path))[1].splitlines()[:-1]
    assert json.loads((tmp_path / "audit.json").read_text())["terms"]["epsilon_left"] is None


@pytest.fixture
def behind(tmp_path):
    """A site restored from a copy that lacks its second run, and the aggregator's record of the whole."""
    state(tmp_path)
    copy = ledger_of(tmp_path).read_bytes()
    Agreed(ledger_of(tmp_path).parent).advance(record_of(tmp_path))
    with Ledger.open(ledger_of(tmp_path).parent, keyfile.load(tmp_path / keyfile.SITE), TERMS) as ledger:
        ledger.reserve_run(plan("r2", noise_multiplier=1.5))
    record = record_of(tmp_path)
    ledger_of(tmp_path).write_bytes(copy)
    return tmp_path, record


ANSWERS = ("--operator", "Dr. Ada", "--reason", "disk restored from Monday")


def test_reconciling_charges_what_the_record_has_beyond_the_ledger(behind):
    folder, record = behind
    before = fold(chain(folder)).epsilon
    durable.replaced(folder / "records" / "lungs.json", encode(record))
    code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert code == 0, said
    entry = chain(folder)[-1]
    assert (entry.kind, entry.sequence) == ("reconcile", record.sequence + 1)
    assert entry.detail["epsilon"] == pytest.approx(record.epsilon_after - before)
    assert entry.detail["delta"] == pytest.approx(1e-6)
    assert (entry.detail["operator"], entry.detail["reason"]) == (ANSWERS[1], ANSWERS[3])
    assert fold(chain(folder)).epsilon == pytest.approx(record.epsilon_after)
    assert deerfield("ledger", "verify", folder)[0] == 0
    again = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert again[0] == 2
    assert "nothing to reconcile" in again[1]


def test_reconciling_asks_first(behind):
    folder, record = behind
    durable.replaced(folder / "records" / "lungs.json", encode(record))
    before = ledger_of(folder).read_bytes()
    done = CliRunner().invoke(cli.app, ["ledger", "reconcile", str(folder), *ANSWERS], input="n\n")
    assert done.exit_code == 1
    assert "cannot be taken back" in done.output
    assert ledger_of(folder).read_bytes() == before


def test_without_a_record_the_cost_is_infinite_and_must_be_said(behind):
    folder, _ = behind
    code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert code == 2
    assert "--unknown-cost" in said
    assert deerfield("ledger", "reconcile", folder, *ANSWERS, "--unknown-cost", "--yes")[0] == 0
    assert fold(chain(folder)).epsilon == inf
    assert deerfield("ledger", "verify", folder)[0] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"site": "beta"}, "of site 'beta'"),
        ({"population": "hearts"}, "not lungs"),
        ({"signer": key_of("a stranger")}, "the aggregator that this site knows"),
    ],
)
def test_a_record_of_something_else_or_by_a_stranger_is_refused(behind, changes, said):
    folder, _ = behind
    (folder / "aggregator.pub").write_text(public_key(AGGREGATOR))
    path = folder / "sent.json"
    path.write_bytes(encode(record_of(folder, **changes)))
    before = ledger_of(folder).read_bytes()
    code, sentence = deerfield("ledger", "reconcile", folder, *ANSWERS, "--record", path, "--yes")
    assert (code, said in sentence) == (2, True), sentence
    assert ledger_of(folder).read_bytes() == before


def test_a_record_that_was_changed_is_refused(behind):
    folder, record = behind
    path = folder / "sent.json"
    path.write_bytes(encode(replace(record, epsilon_after=0.0)))
    code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--record", path, "--yes")
    assert (code, "not signed" in said) == (2, True)


def test_a_ledger_that_a_site_has_open_is_not_reconciled(behind):
    folder, record = behind
    durable.replaced(folder / "records" / "lungs.json", encode(record))
    with Ledger.open(ledger_of(folder).parent, keyfile.load(folder / keyfile.SITE), TERMS):
        code, said = deerfield("ledger", "reconcile", folder, *ANSWERS, "--yes")
    assert (code, "open in another process" in said) == (2, True)


def test_a_record_reads_back_as_it_was_written(tmp_path):
    state(tmp_path)
    for epsilon in (0.0, 1.25, inf):
        record = record_of(tmp_path, epsilon_after=epsilon)
        assert decode(encode(record), "it") == record


@pytest.mark.parametrize("command", ["show", "verify", "export"])
def test_bad_folders_are_one_sentence_and_exit_code_2(tmp_path, command):
    more = ("--out", tmp_path / "x") if command == "export" else ()
    state(tmp_path / "site")
    state(tmp_path / "site", replace(RENYI, population="hearts"), runs=())
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.json").write_text("{}")
    cases = {
        tmp_path / "nowhere": "there is no such folder",
        tmp_path / "empty": "has no ledger",
        tmp_path: "name one: site",
        tmp_path / "site": "say which with --population",
        tmp_path / "notes.json": "no export of one",
    }
    for folder, part in cases.items():
        code, said = deerfield("ledger", command, folder, *more)
        assert (code, part in said, "\n" in said) == (2, True, False), said
    code, said = deerfield("ledger", command, tmp_path / "site", *more, "--population", "hearts")
    assert code == 0
    code, said = deerfield("ledger", command, tmp_path / "site", *more, "--population", "skin")
    assert (code, "hearts, lungs" in said) == (2, True)


def test_help_says_the_exit_codes():
    assert "Exit code 3" in deerfield("plan", "--help")[1]
    assert "Exit code 1" in deerfield("ledger", "verify", "--help")[1]
