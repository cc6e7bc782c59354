"""`histotransfer` with a small network, its libraries loaded once: a child for each command that is asked for.

Each line of standard input is a command as JSON: `arguments`, `environment`, `folder` (where it runs), `errors` (file
for standard error) and `limit` (bytes that a file may have, or null). The answer is the child's process id. The child
belongs to whoever asks: it is a grandchild here, left to the nearest process that adopts orphans.
"""

import functools
import json
import os
import resource
import runpy
import sys
import tempfile
from pathlib import Path

import torch._dynamo  # noqa: F401  torch imports it to build a network without weights

import histotransfer.book.build.execution
import histotransfer.book.course
import histotransfer.deploy.rows
import histotransfer.deploy.shipping
import histotransfer.experiments.adapting
import histotransfer.experiments.duplicates
import histotransfer.experiments.explanations
import histotransfer.experiments.gates
import histotransfer.experiments.leakage
import histotransfer.experiments.normalisation
import histotransfer.experiments.patients
import histotransfer.experiments.splits
import histotransfer.report.answers
import histotransfer.study.whole  # noqa: F401  all these are what commands import when they run
from histotransfer.datasets.phantom import write_phantom
from histotransfer.deploy import flagged
from histotransfer.experiments import complexity, failures, provoked
from histotransfer.experiments.provoked import Effort

small = runpy.run_path(str(Path(__file__).parents[1] / "small_network.py"))
TINY = Effort(cases=2, seeds=2, show_seeds=1, many=8, some=8, few=8, held_out=8, epochs=3, show_epochs=3, size=32)


def shrink():
    """The work of a command in about a second: a small network, few epochs, small phantom pictures."""
    small["shrink"]()
    complexity.EPOCHS, complexity.SMALL_SIZE = 2, 32
    complexity.NETS[complexity.SMALL] = {"positions": (), **small["SMALL"]}
    failures.run, failures.imagenet_trunk = functools.partial(failures.run, effort=TINY), small["trunk"]
    flagged.COUNT, flagged.SIZE = 4, 64
    provoked.SEDenseNet = functools.partial(provoked.SEDenseNet, **small["SMALL"])
    write_phantom.__kwdefaults__.update(size=48, images_per_magnification=1, lung_originals=5, lung_copies=2)


def fork():
    """Twice: the child in between ends, and nobody here waits for its own. The id of the last, in the parent."""
    read, write = map(os.fdopen, os.pipe(), "rw")
    with read, write:
        if between := os.fork():
            os.waitpid(between, 0)
            write.close()
            return int(read.read())
        if child := os.fork():
            write.write(str(child))
            write.close()
            os._exit(0)
        return 0


def become(arguments, environment, folder, errors, limit):
    """What a new process would be that was started with these."""
    os.chdir(folder)
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, os.devnull, os.O_WRONLY), (2, errors, os.O_WRONLY)):
        os.dup2(os.open(path, flags), number)
    os.environ.update(environment)
    tempfile.tempdir = None  # it may have been asked for while the libraries were loaded
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["histotransfer", *arguments]


if __name__ == "__main__":
    shrink()
    for line in sys.stdin:
        child = fork()
        if not child:
            become(**json.loads(line))
            small["main"]()
            sys.exit()
        print(child, flush=True)
