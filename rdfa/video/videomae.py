"""VideoMAE (Tong et al., arXiv 2203.12602) by Hugging Face's transformers, with weights that the user brings.

A folder as `save_pretrained` and the Hub have it (for example MCG-NJU/videomae-base): config.json,
preprocessor_config.json and model.safetensors. Nothing is downloaded, and nothing unpickled beyond tensors.
"""

import os
import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from rdfa.errors import RdfaError
from rdfa.video.frames import INSTALL

os.environ.setdefault("HF_HUB_OFFLINE", "1")


class VideoMAE:
    """Clips to the mean of the network's last tokens: (N, H, W, 3) uint8 to (C,) float32.

    Raises:
        RdfaError: the extra is not installed, no folder, damaged or with weights missing; a clip of another length.
    """

    def __init__(self, folder: Path | None, device: str) -> None:
        try:
            import transformers
        except ImportError as error:
            raise RdfaError(f"the encoder 'videomae' needs transformers: {INSTALL}") from error
        if folder is None or not folder.is_dir():
            what = "--weights is missing" if folder is None else f"{folder}: no such folder"
            raise RdfaError(
                f"{what}: the encoder 'videomae' needs a folder with config.json, preprocessor_config.json and "
                "model.safetensors, as the Hugging Face Hub has it (MCG-NJU/videomae-base)"
            )
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            self._prepare = transformers.VideoMAEImageProcessor.from_pretrained(str(folder), local_files_only=True)
            model, report = transformers.VideoMAEModel.from_pretrained(
                str(folder), local_files_only=True, weights_only=True, output_loading_info=True
            )
        except (
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            TypeError,
            pickle.UnpicklingError,
            SafetensorError,
        ) as error:
            reason = " ".join(str(error).split())[:160]
            raise RdfaError(f"{folder}: not a whole VideoMAE of transformers ({reason})") from error
        missing = sorted(report["missing_keys"])
        if missing:  # transformers would draw them at random
            raise RdfaError(f"{folder}: lacks {len(missing)} weights of a VideoMAE, the first {missing[0]}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.to(device).eval()
        self._frames = int(model.config.num_frames)

    @torch.inference_mode()
    def __call__(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(clip) != self._frames:
            raise RdfaError(f"this VideoMAE sees {self._frames} frames at a time, not {len(clip)}: set --window")
        pixels = self._prepare(list(clip), return_tensors="pt")["pixel_values"].to(self._model.device)
        vector: NDArray[np.float32] = self._model(pixels).last_hidden_state[0].mean(0).float().cpu().numpy()
        return vector
