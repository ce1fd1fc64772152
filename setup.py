import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PACKAGES = ("uncertainty_core", "ddn_detectron2", "dudes_mmseg", "classification")
# Folders that are no packages in a checkout, and where they are installed: what a user runs, and its configs.
FOLDERS = {"distilled_uncertainty": "tools", "distilled_uncertainty.configs": "configs"}


def version():
    """The one in uncertainty_core, which cannot be imported before what it needs is installed."""
    source = (ROOT / "uncertainty_core" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


def long_description():
    """README without its pictures and its links to other files, none of which leads anywhere outside the repository."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    without_pictures = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", readme)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", without_pictures)


setup(
    name="distilled-uncertainty",
    version=version(),
    description="Trustworthy confidence in one forward pass, for Detectron2, mmsegmentation and image classifiers",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=[
        "uncertainty",
        "calibration",
        "knowledge distillation",
        "Monte-Carlo dropout",
        "deep ensembles",
        "object detection",
        "semantic segmentation",
        "PyTorch",
        "Detectron2",
        "mmsegmentation",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    # an allow-list: tests must never land in site-packages
    packages=[*find_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]), *FOLDERS],
    package_dir=FOLDERS,
    package_data={
        # .pyi: what `import` and type checkers find a package's names by
        "": ["py.typed", "*.pyi"],
        "uncertainty_core.report": ["*.css", "*.js"],
        "distilled_uncertainty.configs": ["**/*.yaml", "**/*.py"],
    },
    entry_points={"console_scripts": ["distilled-uncertainty = distilled_uncertainty.__main__:main"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.3",
        "torchvision>=0.18",
        "numpy>=1.24",
        "torchmetrics>=1.5",
        "lazy_loader>=0.4",
        "safetensors>=0.4.3",
        "pyyaml>=6",
        "pillow>=9.1",
        "matplotlib>=3.7",
        "scikit-learn>=1.3",
        "tqdm>=4.64",
        "tensorboard>=2.12",
    ],
    extras_require={
        # Detectron2 itself is not on PyPI: README, "Installing Detectron2"
        "detection": ["pycocotools>=2.0.7"],
        # the maintained continuation of OpenMMLab; same import names, no compiling
        "segmentation": [
            "onedl-mmsegmentation>=1.4",
            "onedl-mmcv>=2.3",
            "onedl-mmengine>=0.10",
            "cityscapesscripts>=2.2",
            "numpy<2.4",  # which has no in1d; cityscapesscripts 2.3 needs it
            "ftfy",
            "regex",
        ],
        # mmcv is to be compiled first: README, "Installing the original mmsegmentation"
        "segmentation-openmmlab": [
            "mmsegmentation==1.2.2",
            "mmengine==0.10.7",
            "mmcv==2.1.0",
            "cityscapesscripts>=2.2",
            "numpy<2.4",
            "ftfy",
            "regex",
        ],
        # distilled-uncertainty export; torch 2.5 is the first that chooses between its two exporters
        "export": ["onnx>=1.16", "onnxruntime>=1.18", "torch>=2.5"],
        "dev": ["pytest>=8", "pytest-cov>=5", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.6", "netcal>=1.3.5"],
    },
)
