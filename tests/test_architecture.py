"""Rules of the code base, checked on the source: import levels, sizes, forbidden calls."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "tfopt").rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]

# An import may only point to an earlier line, or stay inside the same package.
LEVELS = [
    ["_fit_data", "_optimizers_in_use"],
    [
        "_checks",
        "_optional",
        "_keras_internals",
        "_lazy",
        "_locks",
        "_memory",
        "_named_outputs",
        "_surroundings",
        "_table",
        "_directions",
    ],
    ["_tfmot", "_tflite_internals", "_batch_norm", "_plot", "_files"],
    ["schedules", "losses", "tasks"],
    ["optimizers", "data", "models", "distribute"],
    ["callbacks", "testing"],
    ["compress"],
    ["report"],
    ["recipes"],
    ["tune"],
    ["doctor"],
    ["cli"],
    ["__init__", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
LAZY = {"tensorflow_model_optimization", "keras_tuner", "tensorflow_datasets", "sklearn", "matplotlib"}
PRIVATE_KERAS = {
    "tfopt/_keras_internals.py",
    "tfopt/_named_outputs.py",
    "tfopt/optimizers/_rule.py",
    "tfopt/distribute/multiworker.py",
}
FILE_LINES, FUNCTION_LINES = 200, 60  # of code: docstrings, comments and blank lines have no limit


def part(path: pathlib.Path) -> str:
    """The first name below tfopt/: a package or a module."""
    return path.relative_to(ROOT / "tfopt").parts[0].removesuffix(".py")


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@functools.cache
def imported_modules(path: pathlib.Path, top_level_only: bool = False) -> list[str]:
    names = []
    nodes = tree(path).body if top_level_only else ast.walk(tree(path))
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_point_to_lower_levels(path):
    own = part(path)
    assert own in LEVEL, f"{own} has no level in this test"
    for name in imported_modules(path):
        if name.startswith("tfopt."):
            other = name.split(".")[1]
            if other in LEVEL and other != own:
                assert LEVEL[other] < LEVEL[own], f"{path}: {own} may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_no_eager_import_of_heavy_packages(path):
    heavy = [name for name in imported_modules(path, True) if name.split(".")[0] in LAZY]
    assert not heavy, f"{path} imports {heavy} at import time"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_private_keras_stays_in_three_files(path):
    private = [name for name in imported_modules(path) if name.startswith(("keras.src", "tensorflow.python"))]
    assert not private or str(path.relative_to(ROOT)) in PRIVATE_KERAS, f"{path} imports {private}"


def code_lines(path: pathlib.Path) -> list[int]:
    """Numbers of the lines that hold code: no docstrings, comments or blank lines."""
    prose: set[int] = set()
    for node in ast.walk(tree(path)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            prose.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(path.read_text().splitlines(), 1)
    return [n for n, line in lines if n not in prose and line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_files_and_functions_stay_short(path):
    code = code_lines(path)
    assert len(code) <= FILE_LINES, f"{path} is too long"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            length = sum(node.body[0].lineno <= line <= node.end_lineno for line in code)
            assert length <= FUNCTION_LINES, f"{path}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(tree(path)), f"{path} has no module docstring"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_public_names_are_documented(path):
    for node in tree(path).body:
        public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        if public:
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"


# What Python has on POSIX systems only, by its documentation. Windows fails on the import or the attribute.
POSIX_MODULES = {
    *("crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "pty", "pwd", "readline", "resource", "spwd"),
    *("syslog", "termios", "tty"),
}
POSIX_OF_OS = r"""
    chown|chroot|confstr|ctermid|eventfd|fchdir|fchmod|fchown|fork|forkpty|fpathconf|fstatvfs|get(e|res)?[ug]id
    |getgroups|getgrouplist|getloadavg|getpgid|getpgrp|getpriority|getsid|getxattr|initgroups|killpg|lchown|listxattr|lockf
    |memfd_create|mkfifo|mknod|nice|O_(CLOEXEC|DIRECTORY|DIRECT|NOFOLLOW|NONBLOCK|SYNC|DSYNC|NOCTTY|TMPFILE)|openpty
    |pathconf|pidfd_open|pipe2|posix_\w+|pread(v)?|pwrite(v)?|readv|register_at_fork|removexattr|RTLD_\w+|sched_\w+
    |sendfile|set(e|re|res)?[ug]id|setgroups|setns|setpgid|setpriority|setsid|setxattr|splice|statvfs|sync|sysconf
    |tc[gs]etpgrp|ttyname|uname|unshare|wait|wait3|wait4|waitid|W(NOHANG|UNTRACED|IF\w+|EXITSTATUS|TERMSIG)|writev
"""
POSIX_NAMES = re.compile(
    rf"""os\.({POSIX_OF_OS})$
    |signal\.(?!SIG(ABRT|BREAK|FPE|ILL|INT|SEGV|TERM|_DFL|_IGN)$)SIG[A-Z]\w*$
    |signal\.(alarm|getitimer|pause|pthread_\w+|setitimer|siginterrupt|sigpending|sigtimedwait|sigwait(info)?)$
    |socket\.(AF_UNIX|SO_REUSEPORT|socketpair|sendmsg)$
    |select\.(poll|epoll|kqueue)$
    |time\.(tzset|clock_gettime|clock_settime|pthread_getcpuclockid)$""",
    re.VERBOSE,
)
GUARDS = ("sys.platform", "os.name", "hasattr(os", "hasattr(signal", "ImportError", "AttributeError")


def posix_only(source: ast.Module) -> list[tuple[str, str]]:
    """(name, code of the top-level statement around it) of what Windows does not have."""
    found = []
    for statement in source.body:
        for node in ast.walk(statement):
            used = []
            if isinstance(node, ast.Import):
                used = [alias.name for alias in node.names if alias.name in POSIX_MODULES]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                used = [node.module] if node.module in POSIX_MODULES else filter(POSIX_NAMES.match, names)
            elif isinstance(node, ast.Attribute):
                used = filter(POSIX_NAMES.match, [ast.unparse(node)])
            elif isinstance(node, ast.keyword) and node.arg == "preexec_fn":
                used = ["preexec_fn"]  # `Popen` on Windows raises ValueError
            found += [(name, ast.unparse(statement)) for name in used]
    return found


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_no_posix_only_call_without_a_guard(path):
    for name, code in posix_only(tree(path)):
        assert any(guard in code for guard in GUARDS), f"{path}: guard {name} by sys.platform"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import fcntl", ["fcntl"]),
        ("from os import fork, path", ["os.fork"]),
        ("def f():\n    return os.getuid() + os.getpid()", ["os.getuid"]),
        ("signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.SIGUSR1; signal.Signals", ["signal.SIGUSR1"]),
        ("subprocess.Popen([], preexec_fn=os.setsid)", ["os.setsid", "preexec_fn"]),
    ],
)
def test_the_test_of_posix_calls_finds_them(code, found):
    assert sorted(name for name, _ in posix_only(ast.parse(code))) == found


def unnamed_encodings(source: ast.Module) -> list[str]:
    """Calls that read or write text in the encoding of the system: that of Windows lacks most letters."""
    found = []
    for node in ast.walk(source):
        if not isinstance(node, ast.Call) or any(each.arg == "encoding" for each in node.keywords):
            continue
        called = ast.unparse(node.func)
        if called.endswith((".read_text", ".write_text")):
            found.append(ast.unparse(node))
        elif called == "open":
            given = [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "mode")]
            if not any("b" in getattr(mode, "value", "b") for mode in given):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_text_files_name_their_encoding(path):
    assert unnamed_encodings(tree(path)) == [], "add encoding='utf-8'"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_names_that_only_some_keras_versions_have_stay_in_the_gateway(path):
    """`MultiOptimizer` came with Keras 3.15: an attribute error on Colab."""
    used = [ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)]
    assert "keras.optimizers.MultiOptimizer" not in used, f"{path}: use _keras_internals.is_multi_optimizer"


def test_the_page_on_architecture_shows_the_levels_of_the_code():
    page = (ROOT / "docs" / "architecture.md").read_text()
    shown = page.partition("<!-- levels -->")[2].partition("<!-- end of levels -->")[0]
    lines = [line.split()[1:] for line in shown.splitlines() if line[:2].strip().isdigit()]
    assert lines == [sorted(names) for names in LEVELS]
    there = {part(path) for path in FILES}
    assert there == {name for line in lines for name in line}


def test_every_public_package_has_a_page_in_the_reference():
    pages = {path.stem for path in (ROOT / "docs" / "reference").glob("*.md")}
    public = {path.parent.name for path in (ROOT / "tfopt").glob("*/__init__.py")} - {"cli"}
    assert pages == {"tfopt", *public}
    listed = (ROOT / "mkdocs.yml").read_text()
    assert all(f"reference/{page}.md" in listed for page in pages)
