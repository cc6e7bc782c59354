"""Execute chapters with papermill and remove from the notebooks what varies from run to run."""

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from graphlib import TopologicalSorter
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

import nbformat
import papermill
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from histotransfer.book.build.inputs import LOG, MANIFEST, inputs_of, keep, startup
from histotransfer.book.build.parameters import check_parameters, parameters_cell, with_values
from histotransfer.book.build.sources import KERNEL, continued, last_line, notebook_text, read_source
from histotransfer.errors import HistotransferError
from histotransfer.files import scratch_folder, write_text

STARTS = 3  # of a kernel
# Run by IPython before any cell. A kernel looks whether its parent is gone, but may begin to do so when it already is.
ORPHAN = """\
import os
if os.name == "posix" and os.environ["JPY_PARENT_PID"] != str(os.getppid()):
    os._exit(1)
del os
"""
AT_ONCE = 2  # chapters that run side by side: each keeps one core busy most of the time, and may take 2 GB

# Text that differs between two runs of a cell or two machines, and its replacement.
VOLATILE = (
    (re.compile(r"\S*ipykernel_\d+[/\\]\d+\.py"), "<cell>"),
    (re.compile(r"(?<=\bat )0x[0-9a-fA-F]+"), "0x..."),
    (re.compile(r"[^\s\"']*[/\\]site-packages[/\\]"), ""),
)


class _ThisInterpreter(AsyncKernelManager):
    """Starts a kernel of the running interpreter, whichever kernels are installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Without -Xfrozen_modules=off the debugger warns at every start. At a lower log level a kernel that is shut
        # down sometimes logs the interrupt before it. What a cell raises is in the notebook anyway.
        spec = get_kernel_dict(["--log-level=CRITICAL"], ["-Xfrozen_modules=off"])
        # Progress bars show timings, some figures a date, and tqdm warns that it finds no widgets for bars that it does
        # not draw: none of this belongs on a page.
        # Idle threads of OpenMP would spin and slow down other programs and the chapter beside this one. One thread
        # does not compete with that chapter for cores, and prints the same last digits on any number of cores.
        environment = {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "OMP_WAIT_POLICY": "passive",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": "0",
            "TQDM_DISABLE": "1",
            "PYTHONWARNINGS": "ignore:IProgress not found",
        }
        return KernelSpec(**spec, env=environment)

    @default("connection_file")
    def _beside_ipython(self) -> str:
        # Else it would be in the system's temporary folder, and stay there after a kill.
        return f"{os.environ['IPYTHONDIR']}/kernel.json"

    @default("transport_encryption")
    def _encrypt(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"  # unencrypted kernels warn at every start


class ChapterError(HistotransferError):
    """A chapter failed while it ran; `cell` is the code of the cell that failed, empty if none had started."""

    def __init__(self, message: str, cell: str):
        super().__init__(message)
        self.cell = cell

    def __reduce__(self) -> tuple[type["ChapterError"], tuple[str, str]]:
        """Pickle `cell` too, because the error comes from the process that ran the chapter."""
        return type(self), (str(self), self.cell)


def execute_chapter(
    source: str | Path,
    output: str | Path,
    parameters: Mapping[str, object] | None = None,
    key: str = "",
    *,
    root: str | Path = ".",
) -> None:
    """Execute one chapter with papermill and write the normalised notebook to `output`.

    Args:
        source: the chapter, py:percent or ipynb.
        output: the notebook to write; an existing one is replaced only if the chapter runs to its end.
        parameters: values for the names in the chapter's `parameters` cell; the others keep their defaults.
        key: with it, what the chapter was made from is kept beside `output` (`inputs.keep`).
        root: the repository's root, in which the cells run: paths in a chapter are relative to it.

    Raises:
        HistotransferError: parameters are invalid, or `output` is a folder; nothing was run.
        ChapterError: a cell failed. The message names chapter, cell and error; the notebook so far is in
            `root/_build/failed/`.
    """
    source, output, root = Path(source).absolute(), Path(output).absolute(), Path(root).absolute()
    if output.is_dir():
        raise HistotransferError(f"{output}: is a folder; name the notebook to write")
    given = dict(parameters or {})
    values = check_parameters(source, given)
    notebook = read_source(source)
    failed = root / "_build" / "failed" / f"{source.stem}.ipynb"
    failed.unlink(missing_ok=True)
    with scratch_folder(output) as folder, _own_ipython(folder):
        raw = folder / failed.name
        try:
            _execute(notebook, raw, given, root)
        except OSError:  # of the disk; what a cell raises comes in an error of papermill
            raise
        except Exception as error:
            where, cell = _failing_cell(raw)
            message = f"chapter {source.stem} failed{where}: {_cause(error)}"
            if raw.is_file():
                failed.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(raw, failed)
                message += f" (what was executed is kept in {failed})"
            raise ChapterError(message, cell) from error
        executed = nbformat.read(raw, as_version=4)
        used = inputs_of(folder / LOG, root)
    write_text(output, notebook_text(normalise(executed, source, values)))
    if key:
        keep(output.with_suffix(MANIFEST), key, used)


def _execute(notebook: NotebookNode, raw: Path, parameters: Mapping[str, object], root: Path) -> None:
    """papermill; a kernel that dies before the first cell is started anew.

    Two kernels that start at once may choose the same port, and then one of them cannot bind it.
    """
    for attempt in range(STARTS):
        try:
            papermill.execute_notebook(
                notebook,
                raw,
                parameters=dict(parameters),
                kernel_name=KERNEL["name"],
                kernel_manager_class=_ThisInterpreter,
                coalesce_streams=True,  # how printed text is cut into messages is a matter of timing
                progress_bar=False,
                cwd=root,
            )
            return
        except RuntimeError as error:
            if "Kernel died before" not in str(error) or attempt + 1 == STARTS:
                raise


def execute_chapters(due: Mapping[str, tuple], root: Path) -> Iterator[tuple[str, float]]:
    """Execute chapters, `AT_ONCE` side by side; yield the name of each and its seconds when it is done.

    A chapter that goes on with what another has trained begins when that one is done.

    Args:
        due: source, output, parameters and key of each chapter, as for `execute_chapter`, by name in the book's order.
        root: as for `execute_chapter`.

    Raises:
        ChapterError: a chapter failed. Those that run beside it are finished, no other is begun.
    """
    sources = [source for source, *_ in due.values()]
    order = TopologicalSorter({name: continued(sources[at], sources[:at]) for at, name in enumerate(due)})
    order.prepare()
    begun: dict[Future, tuple[str, float]] = {}
    # In separate processes, because an execution sets environment variables and an event loop.
    with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting: list[str] = []
        while order.is_active():
            waiting[:0] = order.get_ready()  # first: what waited longest to be ready, and should not be the last alone
            while waiting and len(begun) < AT_ONCE:
                name = waiting.pop(0)
                begun[pool.submit(execute_chapter, *due[name], root=root)] = name, time.monotonic()
            for future in wait(begun, return_when=FIRST_COMPLETED).done:
                name, start = begun.pop(future)
                future.result()
                order.done(name)
                yield name, time.monotonic() - start


def _end_with_parent() -> None:
    """In a worker: end as soon as the process that builds is gone, however it ended; kernels do so themselves."""

    def watch(parent: BaseProcess) -> None:
        parent.join()
        os._exit(1)

    if parent := parent_process():
        Thread(target=watch, args=(parent,), daemon=True).start()


def normalise(executed: NotebookNode, source: Path, values: Mapping[str, object]) -> NotebookNode:
    """The notebook for the page: the source's cells and tags with the outputs of the run, without what varies.

    papermill's `injected-parameters` cell is dropped and its values are written into the chapter's `parameters` cell,
    so that the page shows the parameters once, with the values used.
    """
    notebook = read_source(source)
    parameters = parameters_cell(source, notebook)
    if parameters:
        parameters["source"] = with_values(source, parameters, values)
    ran = {cell["id"]: cell for cell in executed.cells}
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        count += 1
        cell["execution_count"] = count
        cell["outputs"] = ran[cell["id"]].outputs
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
            for key in ("text", "data", "traceback"):
                if key in output:
                    output[key] = _steady(output[key])
            # MyST-NB takes alt texts from the cell's metadata; `chapters.begin` has them written into the output's.
            for kind, about in output.get("metadata", {}).items():
                if kind.startswith("image/") and "alt" in about:
                    cell["metadata"] = _with_alt(cell.metadata, about["alt"])
    return notebook


def _with_alt(metadata: Mapping, alt: str) -> dict:
    look = metadata.get("mystnb", {})
    return {**metadata, "mystnb": {**look, "image": {**look.get("image", {}), "alt": alt}}}


def _steady(value: object) -> object:
    """`value` with volatile text replaced in strings at any depth, but not in pictures."""
    if isinstance(value, dict):
        return {key: item if key.startswith("image/") else _steady(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    if isinstance(value, str):
        for pattern, text in VOLATILE:
            value = pattern.sub(text, value)
    return value


@contextmanager
def _own_ipython(folder: Path) -> Iterator[None]:
    """Keep the reader's IPython start-up files and history out of the kernel; ours notes what is opened."""
    before = os.environ.get("IPYTHONDIR")
    startup(folder / "ipython", ORPHAN)
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    try:
        yield
    finally:
        if before is None:
            del os.environ["IPYTHONDIR"]
        else:
            os.environ["IPYTHONDIR"] = before


def _failing_cell(raw: Path) -> tuple[str, str]:
    """Where a run stopped, as ` in code cell 3 of 12`, and that cell's code; both empty if no cell had started."""
    if not raw.is_file():
        return "", ""
    hidden = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [
        cell
        for cell in nbformat.read(raw, as_version=4).cells
        if cell.cell_type == "code" and cell.source.strip() and not hidden & set(cell.metadata.get("tags", []))
    ]
    for number, cell in enumerate(cells, start=1):
        if cell.metadata.get("papermill", {}).get("status") in ("failed", "running"):
            return f" in code cell {number} of {len(cells)}", cell.source
    return "", ""


def _cause(error: Exception) -> str:
    if isinstance(error, PapermillExecutionError):
        return f"{error.ename}: {last_line(error.evalue)}" if error.evalue else error.ename
    return f"{type(error).__name__}: {last_line(str(error))}"
