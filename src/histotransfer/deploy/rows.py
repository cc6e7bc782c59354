"""Predictions as rows of a file: one for each picture and, by patient, one for each patient after all pictures."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from histotransfer.datasets.identities import spellings
from histotransfer.deploy.predict import Prediction
from histotransfer.errors import HistotransferError
from histotransfer.evaluation.sets import answer
from histotransfer.files import readable
from histotransfer.folders import resolved
from histotransfer.models.description import Description

PATIENT_COLUMNS = ("patient", "pictures", "spread")
DIGITS = 4
FORMULA = ("=", "+", "-", "@", "\t", "\r")
FORMULA_SAFE = {"file": "./", "label": "'", "patient": "'"}  # what goes before such a cell


class RowWriter:
    """Writes predictions to an open file as they come.

    The columns are `file`, `label`, `p_<class>` of each class, `set`, `note` and `profile`. By patient there are three
    more: `patient`; and in the row of a patient, whose `file` is the patient, the number of `pictures` and the `spread`
    (standard deviation) of their logits. In the row of a picture these two are empty. A file that is given twice has
    two rows and counts once for its patient.

    A spreadsheet takes a cell that begins with one of `FORMULA` for a formula. In a CSV such a file is named from its
    folder on (``./=1.png``, the same file), and such a label or patient follows an apostrophe.

    Args:
        file: text, opened with ``newline=""``.
        form: csv with a header, or jsonl: one JSON object per line with the same keys, null for what is empty.
        known: the description of the network.
        patient_of: the patient of a file (`patients.patients`); None for rows of pictures only.

    Attributes:
        predicted: rows of pictures that were written.
        noted: those of them with a note.
    """

    def __init__(
        self,
        file: TextIO,
        form: Literal["csv", "jsonl"],
        known: Description,
        patient_of: Callable[[str], str] | None = None,
    ):
        self.file, self.form, self.known, self.patient_of = file, form, known, patient_of
        self.patients: dict[str, dict[Path, Prediction]] = {}
        self.predicted = self.noted = 0
        chances = [f"p_{name}" for name in known.classes]
        columns = ["file", "label", *chances, "set", "note", "profile", *(PATIENT_COLUMNS if patient_of else ())]
        self.table = csv.DictWriter(file, columns, lineterminator="\n")
        if form == "csv":
            self.table.writeheader()

    def write(self, prediction: Prediction) -> str:
        """Write the row of a picture; probabilities have four digits, a name that is not UTF-8 escapes.

        Returns:
            Why it was not written, where its patient is not known; else nothing.

        Raises:
            ValueError: a probability is no number.
        """
        more: dict[str, Any] = {}
        if self.patient_of:
            try:
                patient = self.patient_of(prediction.file)
            except HistotransferError as error:
                return str(error)
            self.patients.setdefault(patient, {})[resolved(Path(prediction.file))] = prediction
            more = {"patient": patient, "pictures": None, "spread": None}
        self._write(prediction, more)
        self.predicted += 1
        self.noted += bool(prediction.note)
        return ""

    def write_patients(self) -> None:
        """Write a row for each patient, in the order of their first pictures."""
        alike = {name: group[name == group[0]] for group in spellings(self.patients) for name in group}
        for patient, pictures in self.patients.items():
            summary, spread = of_patient(patient, list(pictures.values()), self.known)
            if patient in alike:
                notes = [summary.note, f"differs in spelling only from {alike[patient]!r}"]
                summary = replace(summary, note="; ".join(filter(None, notes)))
            self._write(summary, {"patient": patient, "pictures": len(pictures), "spread": round(spread, DIGITS)})

    def _write(self, prediction: Prediction, more: dict[str, Any]) -> None:
        chances = {f"p_{name}": p for name, p in zip(self.known.classes, prediction.probabilities, strict=True)}
        row = {"file": readable(prediction.file), "label": prediction.label} | chances
        row |= {"set": prediction.set, "note": prediction.note, "profile": self.known.profile, **more}
        if self.form == "csv":
            for column, before in FORMULA_SAFE.items():
                if str(row.get(column, "")).startswith(FORMULA):
                    row[column] = f"{before}{row[column]}"
            self.table.writerow(row | {name: f"{p:.{DIGITS}f}" for name, p in chances.items()})
        else:
            row |= {name: round(p, DIGITS) for name, p in chances.items()}
            self.file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def of_patient(patient: str, pictures: Sequence[Prediction], known: Description) -> tuple[Prediction, float]:
    """What the pictures of a patient say together, and how far apart they are.

    The logits of a patient are the mean log-probabilities of all pictures, those with a note too: as
    `evaluation.metrics.patient_table`.

    Args:
        patient: the name.
        pictures: at least one.
        known: the description of the network.

    Returns:
        The prediction, whose note counts the pictures with each note; and the standard deviation over pictures of the
        log-odds of its label.
    """
    logs = np.log(np.clip([picture.probabilities for picture in pictures], np.finfo(float).tiny, None))
    mean = logs.mean(axis=0)
    chances = np.exp(mean - np.logaddexp.reduce(mean))
    at = int(chances.argmax())
    odds = logs[:, at] - np.logaddexp.reduce(np.delete(logs, at, axis=1), axis=1)
    counts = Counter(note for picture in pictures for note in picture.note.split("; ") if note)
    note = "; ".join(f"{note}: {count} of {len(pictures)}" for note, count in counts.items())
    one = answer(chances, known.classes, known.sets.get("patient"))
    return Prediction(patient, known.classes[at], tuple(chances.tolist()), one, note), float(odds.std())
