"""There is one scheduler, in runtime/native/core: nothing else of the runtime starts threads that run branches."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
THREADS = re.compile(
    r"threading\.(Thread|Timer)\(|ThreadPoolExecutor|ProcessPoolExecutor|std::(thread|jthread|async)\b|pthread_create"
    r"|sched_setaffinity|pthread_setaffinity|new (Thread|Worker)\(|Executors\."
)
# Why each may: what it starts runs no branch.
ALLOWED = {
    "runtime/paraedge_runtime/session.py": "a stream's request runs in a thread of its own, through the core",
    "runtime/native/core/pool.h": "the pool",
    "runtime/native/core/pool.cpp": "the pool",
    "runtime/native/core/placement.h": "where the pool's threads may run",
    "runtime/native/core/placement.cpp": "where the pool's threads may run",
    "runtime/native/core/session.cpp": "the scheduler",
    "runtime/web/src/pool.js": "the browser's pool: its scheduler is held to the core by the core's own numbers",
    "runtime/web/src/session.js": "the browser's workers",
    "runtime/web/bench/page/tasks.js": "the raw workers that the session is compared with",
    "runtime/android/app/src/main/java/ai/paraedge/sample/MainActivity.java": "the sample's camera: frames wait there",
    "runtime/native/python/native.cpp": "frees a session whose last reference goes on its own worker",
}
SOURCES = sorted(
    path
    for folder in ("runtime/paraedge_runtime", "runtime/native", "runtime/web", "runtime/android")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".pyi", ".cpp", ".h", ".hpp", ".js", ".mjs", ".ts", ".java", ".kt")
    and not {"tests", "third_party", "node_modules", "build"} & set(path.parts)
)


def test_the_sources_are_found():
    assert len(SOURCES) > 40


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_core_starts_threads(path):
    found = {match[0] for match in THREADS.finditer(path.read_text(encoding="utf-8"))}
    assert not found or path.relative_to(ROOT).as_posix() in ALLOWED


@pytest.mark.parametrize("path", ALLOWED)
def test_an_exception_is_still_needed(path):
    assert THREADS.search((ROOT / path).read_text(encoding="utf-8"))
