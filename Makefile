# Every target sets up what it needs: a virtual environment in .venv, pinned packages, the compiled library.
PYTHON3 ?= python3
PYTHON := .venv/bin/python
# $(call install,PACKAGES): pip keeps to the pins and tells its log all; where it fails, the log and other ways are named.
install = $(PYTHON) -m pip --quiet --disable-pip-version-check --log .venv/pip.log install --progress-bar off -c constraints.txt $(1) || \
  { echo "error: pip failed: .venv/pip.log says why, docs/guides/install.md has other ways to install cbtalk" >&2; exit 1; }
# By a path, not by setuptools' finder: a folder named cbtalk, like the one that holds a checkout's, would hide that one.
EDITABLE := --no-build-isolation --config-settings editable_mode=compat --editable
DEMO_SETUP := .venv/.demo
SETUP := .venv/.installed
DEMO_FRAMES ?=
# Of every folder a file or two, of those that take a second or two: what breaks when anything breaks.
QUICK := $(addprefix tests/, \
  test_checks.py test_doctor.py test_file_names.py test_layers.py test_ranges.py test_words.py \
  ablate/test_ablate.py::test_an_unknown_variant_is_refused_before_any_work \
  batch/test_local_files.py batch/test_manifest.py bench/test_measure.py dataset/test_video.py \
  evaluate/test_faces.py evaluate/test_lpips.py evaluate/test_pairs.py \
  examples/test_examples.py::test_every_example_has_a_test faces/test_choice.py faces/test_path.py faces/test_yunet.py \
  figures/test_figures.py::test_stages_are_those_of_the_model kernels/test_interpreted.py \
  media/test_crop.py media/test_images.py media/test_moments.py model/test_config.py \
  model/test_talker.py::test_one_source_serves_a_batch_of_driving_frames model/test_relative_motion.py \
  nn/test_attention.py nn/test_vector_quantize.py \
  ops/test_backends.py ops/test_codebook_attention.py ops/test_examples.py ops/test_flow_warp.py ops/test_group_norm.py \
  ops/test_nearest_code_exact.py prepare/test_plan.py render/test_pipeline.py render/test_video.py \
  train/test_config.py train/test_data.py)
# A warning ends the build in development, and not where a user's compiler has one more.
export CBTALK_WERROR ?= ON

.PHONY: build lint quick test test-slow test-all ctest docs demo clean

# torch and the build's tools come first: the build reads torch's headers, and with --no-build-isolation it uses the
# pinned tools instead of downloading them for every build.
$(DEMO_SETUP): pyproject.toml constraints.txt setup.py
	@$(PYTHON3) -c 'import sys; assert sys.version_info >= (3, 11)' 2> /dev/null || \
	  { echo "error: cbtalk needs Python 3.11 or newer: make PYTHON3=python3.11 ..." >&2; exit 1; }
	@test -x $(PYTHON) || $(PYTHON3) -m venv .venv
	@echo "installing PyTorch and what cbtalk needs into .venv; compiling: a few minutes"
	@$(call install,torch setuptools cmake ninja pybind11)
	@$(call install,$(EDITABLE) '.[demo]')
	@touch $@

$(SETUP): $(DEMO_SETUP)
	@echo "installing the tools of development into .venv"
	@$(call install,$(EDITABLE) '.[dev]')
	@touch $@

build: $(SETUP)
	$(PYTHON) setup.py --quiet build_ext --inplace

lint: $(SETUP)
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

# Tests side by side, one thread each: more threads than cores, and threads that spin, make them many times slower.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
PYTEST := $(PYTHON) -m pytest -q -n $(JOBS) --dist worksteal
quick test test-all test-slow: export OMP_NUM_THREADS := 1
quick test test-all test-slow: export OMP_WAIT_POLICY := passive

# CONTRIBUTING.md has the seconds and the counts of each tier; pyproject.toml says what the markers mean.
quick: build
	$(PYTEST) -m "not slow and not release" $(QUICK)

test: build lint ctest
	$(PYTEST) -m "not slow and not release"

test-slow: build lint ctest
	$(PYTEST) -m "not release"

test-all: build lint ctest
	$(PYTEST)

ctest: build
	.venv/bin/ctest --test-dir build/cmake --output-on-failure -j $(JOBS)

# Into site/, without network.
docs: $(SETUP)
	$(PYTHON) -m mkdocs build --strict

# A first look waits for no CUDA kernels, minutes of compiling, where no GPU is; what was built before stays as it is.
demo: export CBTALK_CUDA ?= $(or $(shell sed -n s/^CBTALK_CUDA:STRING=//p build/cmake/CMakeCache.txt 2> /dev/null),\
  $(if $(shell command -v nvidia-smi),AUTO,OFF))
# The portrait is the public-domain image of an astronaut that scikit-image carries.
demo: $(DEMO_SETUP)
	@$(PYTHON) setup.py --quiet build_ext --inplace > .venv/build.log 2>&1 || { cat .venv/build.log; exit 1; }
	@$(PYTHON) -c "import skimage, imageio.v3 as iio; iio.imwrite('demo.png', skimage.data.astronaut())"
	@$(PYTHON) -m cbtalk render --source demo.png --driving cbtalk/weights/demo_motion.safetensors --crop 112,10,240 --output demo.mp4 \
	  $(if $(DEMO_FRAMES),--max-frames $(DEMO_FRAMES))
	@echo "Now your own: source .venv/bin/activate; cbtalk render -s portrait.jpg -d driving.mp4 -o out.mp4"

clean:
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache cbtalk/_lib cbtalk/*.so demo.png demo.mp4
