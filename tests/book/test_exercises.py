"""Each exercise of the book: its self-check refuses the scaffold and a wrong answer, and accepts the solution."""

import ast
from pathlib import Path

import pytest

from histotransfer.book.build.sources import chapter_sources
from histotransfer.book.course import read_chapter
from histotransfer.book.exercises import UNANSWERED, NotYet, self_check

ROOT = Path(__file__).parent.parent.parent
EXERCISES = {e.label: e for source in chapter_sources(ROOT) for e in read_chapter(source).exercises}

# A wrong answer that a reader may well give, and a word of what the check says to it.
WRONG = {
    "ex-data-people": ("people = lambda table: table['label'].value_counts()", "images"),
    "ex-data-leak": (
        "def leaking(split):\n"
        "    parts = split.groupby('patient')['split'].nunique()\n"
        "    return set(parts.index[parts > 1])",
        "which slide",
    ),
    "ex-data-split": (
        "import numpy as np\n"
        "def test_mask(table, seed):\n"
        "    return np.random.default_rng(seed).random(len(table)) < 0.2",
        "also in training",
    ),
    "ex-stain-level": ("level = (240 / 2 + 240 / 4) / 2", "averaged"),
    "ex-stain-unmix": ("unmix = lambda density, stain_matrix: density @ stain_matrix.T", "right angles"),
    "ex-stain-break": ("window = lambda field: (len(field) // 2 - 24, len(field) // 2 - 24)", "differ by"),
    "ex-densenet-channels": ("channels = 64 + 6 * 32", "keeps half"),
    "ex-densenet-gate": (
        "gate_parameters = lambda channels, reduction: 2 * channels * max(4, channels // reduction)",
        "bias",
    ),
    "ex-densenet-fold": (
        "import copy, torch\n"
        "def fold(conv, norm):\n"
        "    folded = copy.deepcopy(conv)\n"
        "    scale = norm.weight / norm.running_var.sqrt()\n"
        "    folded.weight = torch.nn.Parameter(conv.weight * scale[:, None, None, None])\n"
        "    folded.bias = torch.nn.Parameter(norm.bias - norm.running_mean * scale)\n"
        "    return folded",
        "eps",
    ),
    "ex-transfer-views": (
        "import numpy as np\nviews = lambda image: [np.rot90(image, k) for k in range(4)]",
        "mirrors",
    ),
    "ex-transfer-cost": ("times = (2_801_664 + 524_288 + 2_129_920) / 2_129_920", "parameters"),
    "ex-transfer-freeze": (
        "def prepare(model, frozen):\n    frozen.requires_grad_(False)\n    return model.train()",
        "dropout",
    ),
    "ex-evaluation-interval": ("statements = {'a', 'b'}", "no difference is shown"),
    "ex-evaluation-prr": ("recognition_rate = lambda predictions: predictions['right'].mean()", "share of images"),
    "ex-evaluation-redraw": (
        "redraw = lambda table, generator: table.sample(frac=1, replace=True, random_state=generator)",
        "all images or none",
    ),
    "ex-leakage-pipelines": ("pipelines = {'a', 'e'}", "does not leak"),
    "ex-leakage-memory": (
        "from sklearn.neighbors import KNeighborsClassifier\n"
        "def remembered(features, patients):\n"
        "    return KNeighborsClassifier(1).fit(features, patients).score(features, patients)",
        "nearest to itself",
    ),
    "ex-leakage-copies": (
        "import numpy as np\n"
        "def copies(images):\n"
        "    turned = [{np.rot90(one, k).tobytes() for k in range(4)} for one in images]\n"
        "    n = range(len(images))\n"
        "    return {(i, j) for i in n for j in n if i < j and turned[i] & turned[j]}",
        "mirrored",
    ),
    "ex-complexity-scaling": ("times = {'parameters': 4, 'operations': 4}", "kernel does not know"),
    "ex-complexity-convolution": (
        "def multiply_adds(inputs, outputs, kernel, side, stride):\n    return kernel**2 * inputs * outputs * side**2",
        "shrinks",
    ),
    "ex-complexity-front": (
        "import numpy as np\n"
        "def front(cost, score):\n"
        "    return np.array([not np.any((cost < c) & (score > s)) for c, s in zip(cost, score)])",
        "is beaten",
    ),
    "ex-own-csv": (
        "text = 'path,label,patient\\n' + ''.join("
        "f'{name}1.png,{label},{name}\\n' for name, label in zip('abc', ('benign', 'benign', 'malignant')))",
        "the files are",
    ),
    "ex-own-folds": ("most_folds = lambda table: table['label'].value_counts().min()", "not images"),
    "ex-own-pattern": (r"pattern = r'(?P<patient>P\d+_s\d+)_\d+\.png'", "two people"),
    "ex-verdict-rule": (
        'rule = lambda low, high, margin: "supported here" if (low + high) / 2 > 0 else "contradicted here"',
        "the middle is above",
    ),
    "ex-verdict-power": ("smallest = lambda standard_error: 1.96 * standard_error", "every other time"),
    "ex-verdict-patients": ("patients = lambda now, shown, wanted: now * shown / wanted", "square root"),
    "ex-ablation-pairs": ('pairs = {("plain", "se-lung")}', "differs in the lung step"),
    "ex-ablation-paired": (
        "def paired(table):\n"
        '    by_patient = table.groupby("group")[["a", "b"]].mean()\n'
        "    means, variances = by_patient.mean(), by_patient.var() / len(by_patient)\n"
        '    return means["b"] - means["a"], variances.sum() ** 0.5',
        "forgets that both arms",
    ),
    "ex-ablation-holm": ("holm = lambda p: (p * len(p)).clip(max=1)", "Bonferroni"),
    "ex-external-spoils": ('spoils = {"a", "b", "c", "d"}', "takes nothing"),
    "ex-external-effective": ("effective = lambda images, correlation: sum(images)", "worth fewer"),
    "ex-external-threshold": ("shifted = lambda probability: 1 - probability", "ranking changed"),
    "ex-subtype-judged": (
        'judged = lambda table: set(table["subtype"].value_counts().loc[lambda n: n >= 5].index)',
        "four patients",
    ),
    "ex-subtype-auroc": (
        "from sklearn.metrics import roc_auc_score\n"
        "def one_against_rest(probabilities, truth, subtype):\n"
        "    return roc_auc_score(truth == subtype, probabilities.argmax(axis=1) == subtype)",
        "ranks yes and no",
    ),
    "ex-subtype-two": (
        "import numpy as np\n"
        "def malignant(logits, is_malignant):\n"
        "    z = logits[:, is_malignant].sum(axis=1) - logits[:, ~is_malignant].sum(axis=1)\n"
        "    return 1 / (1 + np.exp(-z))",
        "do not add up",
    ),
    "ex-strategy-choice": ('may = {"a", "b", "e"}', "tuning on the test patients"),
    "ex-strategy-batchnorm": (
        "from torch import nn\n"
        "def batchnorm_share(model):\n"
        "    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]\n"
        "    own = sum(t.numel() for norm in norms for t in norm.state_dict().values())\n"
        "    return own / sum(p.numel() for p in model.parameters())",
        "counted, not trained",
    ),
    "ex-strategy-luck": ("luck = lambda n: 0.0", "is not average"),
}


# More of them, for exercises whose first wrong answer is not the likeliest.
ALSO_WRONG = [
    ("ex-stain-level", "level = 29", "adds 1"),
    (
        "ex-ablation-holm",
        "import numpy as np\n"
        "def holm(p):\n"
        "    order = np.argsort(p)\n"
        "    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))\n"
        "    return np.minimum(stepped, 1)[order]",
        "where it should be",
    ),
    (
        "ex-ablation-pairs",
        "pairs = {('plain', 'se'), ('plain-lung', 'se-lung'), ('se', 'se-standard')}",
        "start elsewhere",
    ),
    (
        "ex-evaluation-redraw",
        "import pandas as pd\n"
        "def redraw(table, generator):\n"
        "    drawn = generator.choice(table['group'], table['group'].nunique())\n"
        "    return pd.concat([table[table['group'] == group] for group in drawn])",
        "more often",
    ),
    (
        "ex-evaluation-redraw",
        "import numpy as np, pandas as pd\n"
        "def redraw(table, generator):\n"
        "    drawn = np.random.choice(table['group'].unique(), table['group'].nunique())\n"
        "    return pd.concat([table[table['group'] == group] for group in drawn])",
        "use `generator`",
    ),
    ("ex-evaluation-prr", "recognition_rate = lambda p: p.groupby('patient')['right'].mean()", "average them"),
    (
        "ex-leakage-copies",
        "import numpy as np\n"
        "def copies(images):\n"
        "    keys = [tuple(sorted(map(tuple, image.reshape(-1, 3).tolist()))) for image in images]\n"
        "    return {(i, j) for j in range(len(keys)) for i in range(j) if keys[i] == keys[j]}",
        "other places",
    ),
    (
        "ex-subtype-two",
        "import numpy as np\n"
        "def malignant(logits, is_malignant):\n"
        "    e = np.exp(logits)\n"
        "    return e[:, is_malignant].sum(axis=1) / e.sum(axis=1)",
        "overflows",
    ),
    (
        "ex-verdict-rule",
        "def rule(low, high, margin):\n"
        "    if low > 0:\n"
        "        return 'supported here'\n"
        "    if high < 0:\n"
        "        return 'contradicted here'\n"
        "    return 'no effect worth having' if -margin < low and high < margin else 'undecided'",
        "whether a *gain*",
    ),
    (
        "ex-verdict-rule",
        "def rule(low, high, margin):\n"
        "    if low > 0:\n"
        "        return 'supported here'\n"
        "    if high <= 0:\n"
        "        return 'contradicted here'\n"
        "    return 'no effect worth having' if high < margin else 'undecided'",
        "the rule says 'no effect",
    ),
    (
        "ex-own-folds",
        "most_folds = lambda t: t.groupby('label')['patient'].nunique().min()",
        "two slides of one person",
    ),
    (
        "ex-transfer-freeze",
        "def prepare(model, frozen):\n    model.train()\n    frozen.eval()\n    return model",
        "gradients",
    ),
    (
        "ex-densenet-gate",
        "def gate_parameters(channels, reduction):\n"
        "    hidden = max(4, channels / reduction)\n"
        "    return 2 * channels * hidden + hidden + channels",
        "C = 100",
    ),
]


def verdict(exercise, answer=""):
    """What the self-check says when `answer` is run in place of the scaffold's."""
    *before, last = ast.parse(exercise.scaffold).body
    names = {}
    exec(compile(ast.Module(before, []), exercise.label, "exec"), names)
    exec(answer, names)
    return eval(compile(ast.Expression(last.value), exercise.label, "eval"), names)


def test_every_exercise_has_a_wrong_answer_here_and_no_more():
    assert set(WRONG) == set(EXERCISES)


@pytest.mark.parametrize("label", EXERCISES)
def test_the_unsolved_scaffold_is_refused(label):
    found = verdict(EXERCISES[label])
    assert not found.solved
    assert "cannot be used" not in found.message


@pytest.mark.parametrize("label", EXERCISES)
def test_a_plausible_wrong_answer_is_refused_with_a_hint(label):
    answer, hint = WRONG[label]
    found = verdict(EXERCISES[label], answer)
    assert not found.solved
    assert hint in found.message
    assert "cannot be used" not in found.message


@pytest.mark.parametrize(("label", "answer", "hint"), ALSO_WRONG)
def test_other_wrong_answers_are_refused_with_a_hint(label, answer, hint):
    found = verdict(EXERCISES[label], answer)
    assert not found.solved and hint in found.message and "cannot be used" not in found.message


def test_a_right_level_may_come_from_logarithms():
    answer = "import numpy as np\nlevel = 240 * np.exp(-(np.log(2) + np.log(4)))"
    assert verdict(EXERCISES["ex-stain-level"], answer).solved


@pytest.mark.parametrize("label", EXERCISES)
def test_the_solution_is_accepted(label):
    found = verdict(EXERCISES[label], EXERCISES[label].solution)
    assert found.solved, found
    assert repr(found).startswith("Solved: ")


def test_a_check_never_raises():
    @self_check
    def check(answer):
        raise NotYet("almost")

    @self_check
    def called(answer):
        return answer(1)

    assert repr(check(1)) == "Not yet: almost"
    assert check(...).message == check(None).message == UNANSWERED
    assert called(lambda x: None).message == UNANSWERED
    assert "ZeroDivisionError" in called(lambda x: x / 0).message
    assert called(lambda x: "well").solved
