"""Makes `triage-notes.csv`: synthetic triage notes of three hospitals, for the quickstart. No real person is in it.

The hospitals differ in case mix (which complaints they see) and in vocabulary (how they write them down); a patient
has one to four notes. The same seed gives the same file: `python examples/triage_notes.py --out FILE`.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SEED, PATIENTS = 20, 220  # patients of each hospital
LABELS = ("cardiac", "respiratory", "abdominal", "neurological", "injury")

# case mix: probability of each label, in the order of LABELS
HOSPITALS = {
    "northgate": (0.40, 0.25, 0.15, 0.15, 0.05),
    "riverside": (0.10, 0.20, 0.40, 0.15, 0.15),
    "st-anselm": (0.12, 0.13, 0.10, 0.25, 0.40),
}

# the same complaint in the words of each hospital: prose, telegraphic, abbreviated
COMPLAINTS = {
    "cardiac": (
        ("pressing pain behind the breastbone", "palpitations at rest", "tightness in the chest on the stairs",
         "pain spreading into the left arm", "nearly passed out, pulse irregular"),
        ("central chest pain", "heart racing", "chest tightness on effort", "pain to left arm and jaw",
         "irregular pulse"),
        ("CP radiating L arm", "palps", "exertional CP", "irreg HR, presyncope", "known AF, fast rate"),
    ),
    "respiratory": (
        ("short of breath since the night", "coughing up yellow phlegm", "wheezing after a cold",
         "cannot finish a sentence for lack of breath", "fever with a rattling cough"),
        ("breathless at rest", "productive cough", "wheeze", "cough with fever", "asthma, inhaler not helping"),
        ("SOB", "prod cough x3d", "wheeze, PEF low", "sats 90 RA", "COPD exac"),
    ),
    "abdominal": (
        ("cramps around the navel moving to the right", "vomiting since yesterday", "black stools for two days",
         "burning pain under the ribs after meals", "bloated and no bowel movement"),
        ("lower belly pain right side", "vomiting all night", "dark stools", "heartburn after food", "constipated"),
        ("RIF pain", "N+V", "melaena x2", "epigastric pain", "abdo distension, BNO 4d"),
    ),
    "neurological": (
        ("sudden weakness of one side of the face", "the worst headache of her life", "a seizure this morning",
         "speech slurred since breakfast", "numb hand and unsteady gait"),
        ("face drooping", "severe headache, light hurts", "fit witnessed", "slurred speech",
         "pins and needles, unsteady"),
        ("facial droop ?CVA", "thunderclap HA", "GTC seizure", "dysarthria", "ataxia, paraesthesia"),
    ),
    "injury": (
        ("fell from a ladder onto the wrist", "deep cut on the hand from glass", "twisted ankle playing football",
         "shoulder out of place after a fall", "hit by a bicycle, bruised hip"),
        ("fall on wrist", "hand cut", "ankle twist", "shoulder dislocated", "road accident, hip bruise"),
        ("FOOSH, wrist deform", "lac hand 3cm", "inversion inj ankle", "?dislocated shoulder", "RTC, hip contusion"),
    ),
}  # fmt: skip

OPENINGS = (
    ("{age} year old {person} brought in with", "A {person} of {age} reports", "Patient, {age}, complains of"),
    ("{age}{sex}.", "{person}, {age}:", "{age}{sex}, walked in,"),
    ("{age}{sex} c/o", "pt {age}{sex},", "{age}{sex} via amb,"),
)
# said of every complaint, so that single words do not give the label away
ASIDES = (
    ("otherwise well", "feels anxious", "slept badly", "pain six out of ten", "has had this before", "lives alone"),
    ("well before", "anxious", "pain 6/10", "had it before", "tired", "on tablets for blood pressure"),
    ("PMH nil", "NKDA", "pain 6/10", "obs stable", "prev episode", "anxious++"),
)


def notes(seed: int) -> Iterator[tuple[str, str, str, str]]:
    """(hospital, patient, label, text) of every note."""
    rng = np.random.default_rng(seed)
    for dialect, (hospital, mix) in enumerate(HOSPITALS.items()):
        for number in range(PATIENTS):
            age, sex = int(rng.integers(18, 95)), str(rng.choice(["F", "M"]))
            label = str(rng.choice(LABELS, p=mix))
            for _ in range(int(rng.integers(1, 4, endpoint=True))):
                yield hospital, f"{hospital[:2].upper()}{number:04d}", label, _text(rng, label, dialect, age, sex)


def _text(rng: np.random.Generator, label: str, dialect: int, age: int, sex: str) -> str:
    """One note: an opening, a complaint or two in the hospital's words, and asides that say nothing."""
    person = {"F": "woman", "M": "man"}[sex]
    opening = str(rng.choice(OPENINGS[dialect])).format(age=age, sex=sex, person=person)
    said = list(rng.choice(COMPLAINTS[label][dialect], size=int(rng.integers(1, 2, endpoint=True)), replace=False))
    if rng.random() < 0.15:  # a second, minor complaint of another kind
        said.append(str(rng.choice(COMPLAINTS[str(rng.choice(LABELS))][dialect])))
    said.append(str(rng.choice(ASIDES[dialect])))
    return f"{opening} {', '.join(said)}."


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("triage-notes.csv"))
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    with arguments.out.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("hospital", "patient", "label", "text"))
        rows.writerows(notes(arguments.seed))


if __name__ == "__main__":
    main()
