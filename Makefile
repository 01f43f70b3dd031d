# make setup | demo | test-quick | test | test-native | test-web | test-arm64 | fuzz | docs | wheels | java | phone-tools | lint |
# bench: each works from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test-quick test test-native test-web test-arm64 fuzz docs docs-outputs wheels java phone-tools lint bench clean

setup: $(STAMP)

# torch first and by itself: with a CPU build at hand (a wheel folder, an index of CPU builds) pip
# takes it, and the packages after it find their need met. Then what the native core is built against.
$(STAMP): pyproject.toml sdk/models/pyproject.toml $(shell find runtime/native -type f)
	scripts/need_debian.sh g++ || echo 'going on without the native core; "make test" will want it'
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "paraedge needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps 'executorch==1.5.1'
	env $$(command -v c++ >/dev/null && echo PARAEDGE_NATIVE_REQUIRED=1) $(BIN)/python -m pip install --quiet --progress-bar off --editable sdk/models --editable '.[dev]'
	$(BIN)/python -m pip check
	touch $@

demo: setup
	$(BIN)/python demos/quickstart.py

test: setup
	scripts/need_debian.sh g++ openssh-server openssh-client adb chromium default-jdk-headless junit4
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not cross' --ignore tests/web --ignore tests/site

# While working: the runtime, what measures it, and nothing that exports, trains or installs. Under 90 s on two cores.
test-quick: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'not export and not environment and not slow and not cross' \
		tests/runtime tests/measure tests/test_one_core.py

test-native: setup
	scripts/need_debian.sh g++ cmake ninja-build doctest-dev
	scripts/test_native.sh $(BIN)/python

# The browser runtime: its types and style, then the package and the page in browsers, one test after another.
test-web: setup
	scripts/need_debian.sh chromium firefox-esr libwebkit2gtk-4.1-0 xvfb xauth
	command -v npm >/dev/null || scripts/need_debian.sh nodejs npm
	npm ci --prefix runtime/web --ignore-scripts --no-audit --no-fund
	npm run check --prefix runtime/web
	node scripts/lint_workflows.mjs
	$(BIN)/python -m pytest tests/web

# build/site: the documentation; a warning, a dead link or a public name without a page is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	$(BIN)/python -m pytest --quiet tests/site

# Writes anew what the console blocks in README and docs show; the tests compare it (times, sizes and hashes apart).
docs-outputs: setup
	PARAEDGE_DOCS_OUTPUTS=1 $(BIN)/python -m pytest --quiet tests/test_docs.py -k commands_and_python_run

# dist/: the wheels of x86-64 and of 64-bit Arm for this Python, without any engine's libraries.
wheels: setup
	scripts/make_wheels.sh $(BIN) dist

# dist/paraedge.jar: the Java library, with its natives for Linux on x86-64 and 64-bit Arm and the ExecuTorch engine.
java: setup
	scripts/make_java.sh $(BIN)/python dist/paraedge.jar

# What 'paraedge profile' sends to a phone, or to a board without Python, put where it looks for it.
phone-tools: setup
	scripts/make_phone_tools.sh $(BIN)/python "$$($(BIN)/python -c 'from paraedge_runtime.cache_folder import cache_folder; print(cache_folder())')/phone-tools"

# The native core for 64-bit Arm, under emulation, and compiled for Android and macOS: some minutes, so not a part of 'test'.
test-arm64: setup
	scripts/test_arm64.sh $(BIN)
	scripts/test_phone_tools.sh $(BIN)
	scripts/test_arm64_python.sh $(BIN)
	scripts/test_arm64_recipes.sh $(BIN)
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal -m cross tests/test_apple.py tests/test_android_dialect.py

# Every reader of files from outside, a minute each (FUZZ_SECONDS), two at a time: seven minutes.
fuzz: setup
	scripts/fuzz.sh $(BIN)/python

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/first_numbers.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
