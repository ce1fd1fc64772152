from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = ("uncertainty_core", "ddn_detectron2", "dudes_mmseg", "classification")

setup(
    name="distilled-uncertainty",
    version="0.1.0",
    description="Trustworthy confidence in one forward pass, for Detectron2, mmsegmentation and image classifiers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # an allow-list: tests, tools and configs must never land in site-packages
    packages=find_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]),
    package_data={
        "uncertainty_core": ["__init__.pyi"],  # what `import` and type checkers find its names by, here and below
        "uncertainty_core.detection": ["__init__.pyi"],
        "uncertainty_core.report": ["__init__.pyi", "*.css", "*.js"],
    },
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
        "segmentation-openmmlab": [
            "mmsegmentation==1.2.2",
            "mmengine==0.10.7",
            "mmcv==2.1.0",
            "cityscapesscripts>=2.2",
            "ftfy",
            "regex",
        ],
        "dev": ["pytest>=8", "pytest-cov>=5", "hypothesis>=6.100", "ruff>=0.6", "netcal>=1.3.5"],
    },
)
