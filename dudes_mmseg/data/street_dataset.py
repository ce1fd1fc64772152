"""The drawn streets as a data set that makes itself."""

from mmengine.dist import is_main_process
from mmseg.datasets import CityscapesDataset
from mmseg.registry import DATASETS

from .street_folder import NUM_STREETS, SIZE, write_streets


@DATASETS.register_module()
class StreetScenesDataset(CityscapesDataset):
    """Drawn streets in Cityscapes' classes; those that are not in their folder yet are drawn when it is first read.

    Args:
        data_root: folder of all splits, made if need be.
        split: "train", "val" or "test".
        num_images: how many; None for `NUM_STREETS`.
        size: width and height in pixels.
        seed: of all drawings.
        kwargs: as `CityscapesDataset`.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        num_images: int | None = None,
        size: tuple[int, int] = SIZE,
        seed: int = 0,
        **kwargs,
    ) -> None:
        self._wanted = {split: NUM_STREETS.get(split, 0) if num_images is None else num_images}
        self._size, self._seed = tuple(size), seed
        prefix = {"img_path": f"leftImg8bit/{split}", "seg_map_path": f"gtFine/{split}"}
        super().__init__(data_root=data_root, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """See `BaseSegDataset`."""
        write_streets(self.data_root, self._wanted, self._size, self._seed, progress=is_main_process())
        return super().load_data_list()
