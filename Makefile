# Every target sets up what it needs on first use. VENV=path takes an environment of your own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
# The stamp's name changes when anything that decides the environment's content does, or the checkout moves.
STAMP := $(VENV)/.ready-$(shell { cat setup.py requirements/*; pwd; } | cksum | tr -c '0-9\n' '-')

.PHONY: help setup demo demo-classification demo-detection demo-segmentation test coverage kills fuzz lint format bench lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 22

setup: $(STAMP)  ## make or repair the environment, nothing else

$(STAMP):
	@$(PYTHON) requirements/bootstrap.py --venv $(VENV) --stamp $@

demo: demo-classification demo-detection demo-segmentation  ## see it work on bundled data: tables, and pictures in demo/

demo-classification: $(STAMP)  ## the same for image classifiers: three ways to distil uncertainty, on digits
	@$(RUN) -m classification run --config configs/classification/quick/digits.yaml --threads 1 output=demo

demo-detection: export OMP_NUM_THREADS = 1
demo-detection: export DETECTRON2_DATASETS = demo/datasets
demo-detection: $(STAMP)  ## the same for detectors: a small Faster R-CNN on drawn scenes, its student and their scores
	@$(RUN) tools/distill_detector.py --baseline-config quick/baseline_small.yaml --config-file quick/ddn_small.yaml \
		--also quick/ddn_small_gt_iou.yaml --fit-on scenes_val OUTPUT_DIR demo/detection

demo-segmentation: export OMP_NUM_THREADS = 1
demo-segmentation: $(STAMP)  ## the same for segmentors: an ensemble of small DeepLabV3+ on drawn streets, and its student
	@$(RUN) tools/distill_segmentor.py quick/streets_student.py --member-config quick/streets_member.py --members 3 \
		--calibrators temperature --work-dir demo/segmentation

test: $(STAMP)  ## the whole test suite in two processes
	@$(RUN) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

coverage: PYTEST_ARGS = --cov --cov-fail-under=95
coverage: test  ## the same, and whether all branches of the core are tested, which takes longer

kills: $(STAMP)  ## 200 runs of every kind, killed at random moments and started again: half an hour
	@$(RUN) tests/kills --kills 200 --seed 0

fuzz: $(STAMP)  ## damaged files of every format, at random: SEED=3 repeats a run, COUNT=2000 is how many of each
	@FUZZ_COUNT=$(or $(COUNT),2000) FUZZ_SEED=$(or $(SEED),$(shell date +%s)) $(RUN) -m pytest -n 2 -rP -q tests/fuzz

lint: $(STAMP)  ## style, formatting, and a docstring for every public name
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

format: $(STAMP)  ## apply the formatting
	@$(RUN) -m ruff check --fix . && $(RUN) -m ruff format .

bench: $(STAMP)  ## speed and memory as ratios against the usual libraries
	@$(RUN) tools/benchmarks/core.py && $(RUN) tools/benchmarks/detection.py && $(RUN) tools/benchmarks/detectors.py && \
		$(RUN) tools/benchmarks/segmentors.py && $(RUN) tools/benchmarks/exported.py && \
		$(RUN) tools/benchmarks/intervals.py --repetitions 50

lock: $(STAMP)  ## resolve requirements/lock.in and setup.py into requirements/lock.txt
	@$(RUN) -m uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--extra detection --extra segmentation --extra export --extra dev -o requirements/lock.txt setup.py requirements/lock.in

clean:  ## remove everything that set-up, demo and tests made (only the default environment, never your own)
	rm -rf .venv demo build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
