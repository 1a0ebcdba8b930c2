"""The contender of `benchmark model`: two towers and CLIP's loss in PyTorch, as open_clip trains.

That is: torch.compile, autocast to bfloat16 over float32 parameters, attention by PyTorch's fused
kernels, AdamW, and the loss on one device. Shapes and numbers of parameters are those of
`nlip_jax.models` (a bias where open_clip's patch embedding has none, no layer norm before the
layers), so that the work is the same. The text tower's residual stream, which open_clip leaves in
float32, is in bfloat16 like the image tower's.

    python open_clip_style.py --setting='{"image_size": 224, ...}' --batch=256 --device=cuda

prints examples per second as JSON; a batch that does not fit is made smaller by an eighth of it.
"""

import argparse
import json
import math
import statistics
import sys
import time
import types

import torch
import torch.nn.functional as F
from torch import nn

BLOCKS, STEPS_PER_BLOCK = 5, 10


class LayerNorm(nn.LayerNorm):
    """In float32, back to the type of what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., width]` to the same."""
        return super().forward(x).to(x.dtype)


class Layer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm = LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp_norm = LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """`[b, l, width]` to the same."""
        y = self.attention_norm(x)
        y, _ = self.attention(
            y, y, y, need_weights=False, attn_mask=mask, is_causal=mask is not None
        )
        x = x + y
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Layers and a final norm."""

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = LayerNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`[b, l, width]` to the same."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class ImageTower(nn.Module):
    """A Vision Transformer that gives back its class token's output."""

    def __init__(self, s: types.SimpleNamespace):
        super().__init__()
        width, std = s.image_width, s.image_width**-0.5
        self.patches = nn.Conv2d(3, width, s.patch_size, s.patch_size)
        self.first = nn.Parameter(std * torch.randn(width))
        self.position = nn.Parameter(std * torch.randn((s.image_size // s.patch_size) ** 2, width))
        self.encoder = Encoder(width, s.image_depth, s.image_heads)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """`[b, 3, h, w]` to `[b, width]`."""
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = x + self.position.to(x.dtype)
        first = self.first.to(x.dtype).expand(len(x), 1, -1)
        return self.encoder(torch.cat([first, x], dim=1))[:, 0]


class TextTower(nn.Module):
    """A causal transformer that gives back its last token's output."""

    def __init__(self, s: types.SimpleNamespace):
        super().__init__()
        self.embedding = nn.Embedding(s.vocab_size, s.text_width)
        self.position = nn.Parameter(0.01 * torch.randn(s.context_length, s.text_width))
        self.encoder = Encoder(s.text_width, s.text_depth, s.text_heads)
        mask = torch.full((s.context_length, s.context_length), -math.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[b, l]` to `[b, width]`."""
        x = self.embedding(tokens) + self.position
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        x = self.encoder(x, self.mask)
        last = (tokens != 0).sum(1) - 1
        return x[torch.arange(len(x), device=x.device), last]


class Clip(nn.Module):
    """Both towers, their projections and the temperature."""

    def __init__(self, s: types.SimpleNamespace):
        super().__init__()
        self.image, self.text = ImageTower(s), TextTower(s)
        self.image_projection = nn.Linear(s.image_width, s.embed_dim, bias=False)
        self.text_projection = nn.Linear(s.text_width, s.embed_dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(
        self, image: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings of length 1, `[b, d]` each, and the scale of the logits."""
        images = F.normalize(self.image_projection(self.image(image)), dim=-1)
        texts = F.normalize(self.text_projection(self.text(tokens)), dim=-1)
        return images, texts, self.log_scale.exp()


def contrast(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's loss on one device: the whole matrix, both ways."""
    logits = scale * images @ texts.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


class Trainer:
    """A model, its optimizer and one batch."""

    def __init__(self, s: types.SimpleNamespace, *, batch: int, device: str, compiled: bool = True):
        torch.manual_seed(0)
        self.model = Clip(s).to(device)
        self._forward = torch.compile(self.model) if compiled else self.model
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1
        )
        self._image = torch.randn(batch, 3, s.image_size, s.image_size, device=device)
        self._tokens = torch.randint(1, s.vocab_size, (batch, s.context_length), device=device)
        self._device = device

    def step(self) -> torch.Tensor:
        """One update; returns the loss, which may not be computed yet."""
        self._optimizer.zero_grad()
        with torch.autocast(self._device, dtype=torch.bfloat16):
            loss = contrast(*self._forward(self._image, self._tokens))
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            self.model.log_scale.clamp_(0, math.log(100))
        return loss

    def seconds(self) -> float:
        """Of a step: the median over blocks of them."""
        for _ in range(3):
            self.step().item()
        found = []
        for _ in range(BLOCKS):
            begun = time.perf_counter()
            for _ in range(STEPS_PER_BLOCK):
                loss = self.step()
            loss.item()
            found.append((time.perf_counter() - begun) / STEPS_PER_BLOCK)
        return statistics.median(found)


def measure(s: types.SimpleNamespace, *, batch: int, device: str) -> dict[str, float]:
    """Examples per second with this batch, or with the next smaller one that fits."""
    try:
        seconds = Trainer(s, batch=batch, device=device).seconds()
    except torch.OutOfMemoryError:
        print(f"pytorch: {batch:,} examples do not fit", file=sys.stderr)
    else:
        return {
            "batch_size": batch,
            "step_seconds": seconds,
            "examples_per_second": batch / seconds,
        }
    torch.cuda.empty_cache()
    return measure(s, batch=batch * 7 // 8, device=device)


def main() -> None:
    """Prints the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", required=True, help="JSON of the sizes")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    setting = types.SimpleNamespace(**json.loads(arguments.setting))
    print(json.dumps(measure(setting, batch=arguments.batch, device=arguments.device)))


if __name__ == "__main__":
    main()
