# Every target sets up what it needs: a virtual environment in .venv, pinned packages, the compiled library.
PYTHON3 ?= python3
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --quiet --disable-pip-version-check
SETUP := .venv/.installed
DEMO_FRAMES ?=
# Of every folder a file or two, of those that take a second: what breaks when anything breaks.
QUICK := tests/test_layers.py
# A warning ends the build in development, and not where a user's compiler has one more.
export CBTALK_WERROR ?= ON

.PHONY: build lint quick test test-ci test-all ctest docs demo clean

# torch and the build's tools come first: the build reads torch's headers, and with --no-build-isolation it uses the
# pinned tools instead of downloading them for every build.
$(SETUP): pyproject.toml constraints.txt setup.py
	test -x $(PYTHON) || $(PYTHON3) -m venv .venv
	$(PIP) install -c constraints.txt torch setuptools cmake ninja pybind11
	$(PIP) install -c constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

build: $(SETUP)
	$(PYTHON) setup.py --quiet build_ext --inplace

lint: $(SETUP)
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

# Tests side by side, one thread each: more threads than cores, and threads that spin, make them many times slower.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
PYTEST := $(PYTHON) -m pytest -q -n $(JOBS) --dist worksteal
quick test test-all test-ci: export OMP_NUM_THREADS := 1
quick test test-all test-ci: export OMP_WAIT_POLICY := passive

# CONTRIBUTING.md has the seconds and the counts of each tier; pyproject.toml says what the markers mean.
quick: build
	$(PYTEST) -m "not slow and not release" $(QUICK)

test: build lint ctest
	$(PYTEST) -m "not slow and not release"

test-ci: build lint ctest
	$(PYTEST) -m "not release"

test-all: build lint ctest
	$(PYTEST)

ctest: build
	.venv/bin/ctest --test-dir build/cmake --output-on-failure -j $(JOBS)

# Into site/, without network.
docs: $(SETUP)
	$(PYTHON) -m mkdocs build --strict

# The portrait is the public-domain picture of an astronaut that scikit-image carries.
demo: build
	$(PYTHON) -c "import skimage, imageio.v3 as iio; iio.imwrite('demo.png', skimage.data.astronaut())"
	$(PYTHON) -m cbtalk render --source demo.png --driving cbtalk/weights/demo_motion.safetensors --crop 112,10,240 --output demo.mp4 \
	  $(if $(DEMO_FRAMES),--max-frames $(DEMO_FRAMES))

clean:
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache cbtalk/_lib cbtalk/*.so demo.png demo.mp4
