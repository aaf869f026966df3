"""Train the voice gate's network and write its weights.

    python tools/gate/train.py --train FILE.npz ... --valid FILE.npz --out src/sttd/_vad_weights.h   (needs torch 2.13)

The network: a dense layer with tanh, two layers of gated recurrent units, one output. Adam, binary cross-entropy
against Silero's probabilities. The network's state is carried from stretch to stretch (truncated backpropagation
through time), so that it is trained in the states that hours of quiet and talk leave it in. The last quarter of the
epochs is trained with weights rounded to the eight bits that are written (straight-through), so that rounding costs
nothing afterwards.
"""

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

DENSE, HIDDEN, LAYERS = 64, 64, 2
CHUNK = 250  # frames through which gradients go back
CARRIED = 0.75  # probability that a stream goes on into the next stretch


class Network(nn.Module):
    """As _vad.pyx computes it."""

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.dense = nn.Linear(len(mean), DENSE)
        self.drop = nn.Dropout(0.1)
        self.gru = nn.GRU(DENSE, HIDDEN, LAYERS, batch_first=True, dropout=0.15)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, x: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, a frame each, and the state after them."""
        hidden, state = self.gru(self.drop(torch.tanh(self.dense((x - self.mean) * self.scale))), state)
        return self.out(self.drop(hidden)).squeeze(-1), state

    def matrices(self) -> list[nn.Parameter]:
        """What is written in eight bits, in the order of the file: outputs x inputs each."""
        return [self.dense.weight] + [
            getattr(self.gru, f"weight_{which}_l{layer}") for layer in range(LAYERS) for which in ("ih", "hh")
        ]

    def biases(self) -> list[nn.Parameter]:
        """The recurrent layers' biases in the order of the file."""
        return [getattr(self.gru, f"bias_{which}_l{layer}") for layer in range(LAYERS) for which in ("ih", "hh")]


def eight_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers from -127 to 127, and the scale of each output."""
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
    return torch.round(weight / scale), scale


def area_under_curve(score: np.ndarray, truth: np.ndarray) -> float:
    """Of the receiver operating characteristic, from ranks."""
    order = np.argsort(score, kind="stable")
    rank = np.empty(len(score))
    rank[order] = np.arange(1, len(score) + 1)
    positive = truth.sum()
    return float((rank[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def load(paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels."""
    parts = [np.load(path) for path in paths]
    x, y = (np.concatenate([part[name] for part in parts]) for name in "xy")
    return torch.from_numpy(x), torch.from_numpy(y)


def train(options: argparse.Namespace) -> Network:
    """The best network on the validation set."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    x, y = load(options.train)
    vx, vy = load(options.valid)
    sample = x[:500].float().reshape(-1, x.shape[-1])
    network = Network(sample.mean(0), 1 / sample.std(0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-4)
    columns = len(x) // options.batch
    steps = options.epochs * columns * (x.shape[1] // CHUNK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps, pct_start=0.1)
    best, best_loss = copy.deepcopy(network), math.inf
    generator = torch.Generator().manual_seed(options.seed)
    for epoch in range(options.epochs):
        rounding = epoch >= options.epochs * 3 // 4
        began, total = time.monotonic(), 0.0
        state = torch.zeros(LAYERS, options.batch, HIDDEN)
        order = torch.randperm(len(x), generator=generator)[: columns * options.batch].view(columns, -1)
        network.train()
        for chosen in order:
            # A stream goes on into the next stretch, as a microphone's does, so that its state grows old.
            state = state * (torch.rand(options.batch, generator=generator) < CARRIED)[:, None]
            colours = colour(options.batch, x.shape[-1] // 2 - 2)
            for start in range(0, x.shape[1], CHUNK):
                part = [t[chosen, start : start + CHUNK].float() for t in (x, y)]
                exact = round_in_place(network) if rounding else None
                logits, state = network(coloured(part[0], colours), state.detach())
                loss = nn.functional.binary_cross_entropy_with_logits(logits, part[1])
                optimizer.zero_grad()
                loss.backward()
                if exact is not None:
                    for weight, value in zip(network.matrices(), exact, strict=True):
                        weight.data = value
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += loss.item()
        exact = round_in_place(network)
        network.eval()
        logits = lasting(network, vx)
        valid = float(nn.functional.binary_cross_entropy_with_logits(logits, vy.float()))
        area = area_under_curve(logits.flatten().numpy(), vy.flatten().numpy() > 0.5)
        if rounding and valid < best_loss:
            best, best_loss = copy.deepcopy(network), valid
        if options.keep:
            torch.save(network.state_dict(), options.out.with_suffix(".pt"))
        for weight, value in zip(network.matrices(), exact, strict=True):
            weight.data = value
        print(
            f"epoch {epoch} train {total * options.epochs / steps:.4f} valid {valid:.4f} area {area:.4f}",
            f"seconds {time.monotonic() - began:.0f}",
            flush=True,
        )
    return best


@torch.no_grad()
def lasting(network: Network, x: torch.Tensor) -> torch.Tensor:
    """Logits of the stretches, in rows of twelve that follow each other: four minutes without a new start."""
    rows = x.view(-1, 12, *x.shape[1:])
    state, found = None, []
    for column in range(12):
        logits, state = network(rows[:, column].float(), state)
        found.append(logits)
    return torch.stack(found, 1).view(x.shape[:2])


def colour(number: int, levels: int) -> torch.Tensor:
    """A smooth curve over the bands for each of `number` streams.

    Every stretch is coloured anew, so that the network does not learn its few speakers by heart. A colour moves levels
    but not their distance from the floor.
    """
    place = torch.linspace(0, math.pi, levels)
    waves = torch.cos(torch.arange(5)[:, None] * place)
    return (torch.randn(number, 5) * torch.tensor([0.7, 0.8, 0.6, 0.4, 0.3])) @ waves


def coloured(x: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Features in these colours, with a little noise."""
    levels = colours.shape[-1]
    return torch.cat([x[..., :levels] + colours[:, None], x[..., levels:]], -1) + 0.15 * torch.randn_like(x)


def round_in_place(network: Network) -> list[torch.Tensor]:
    """Round the matrices to eight bits; returns what they were."""
    exact = [weight.data for weight in network.matrices()]
    for weight in network.matrices():
        whole, scale = eight_bits(weight.data)
        weight.data = whole * scale
    return exact


def table(kind: str, name: str, values: np.ndarray) -> str:
    """One array in C."""
    words = [str(int(v)) if kind == "int8_t" else f"{float(np.float32(v)):.9g}f" for v in values.reshape(-1)]
    words = [w if "." in w or "e" in w or kind == "int8_t" else w.replace("f", ".0f") for w in words]
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) > 116:
            lines.append(line)
            line = ""
        line += word + ","
    return f"static const {kind} {name}[] = {{\n" + "\n".join([*lines, line]) + "\n};\n"


def write(network: Network, path: Path) -> None:
    """The header that _vad.pyx reads. Matrices are turned: all outputs of one input beside each other."""
    whole, scales = zip(*(eight_bits(weight.data) for weight in network.matrices()), strict=True)
    turned = [w.T.numpy() for w in whole]
    flat = [s.numpy().reshape(-1) for s in scales]
    biases = np.concatenate([b.data.numpy() for b in network.biases()])
    parts = [
        "/* Made by tools/gate/train.py: the weights of the voice gate's network (see _vad.pyx). Do not edit. */\n",
        "#include <stdint.h>\n",
        f"enum {{ STTD_DENSE = {DENSE}, STTD_HIDDEN = {HIDDEN} }};\n",
        table("int8_t", "sttd_dense_weights", turned[0]),
        table("float", "sttd_dense_scales", flat[0]),
        table("float", "sttd_dense_bias", network.dense.bias.data.numpy()),
        table("int8_t", "sttd_gru_weights", np.concatenate([t.reshape(-1) for t in turned[1:]])),
        table("float", "sttd_gru_scales", np.concatenate(flat[1:])),
        table("float", "sttd_gru_bias", biases),
        table("float", "sttd_out_weights", network.out.weight.data.numpy()),
        f"static const float sttd_out_bias = {float(network.out.bias.data[0]):.9g}f;\n",
        table("float", "sttd_mean", network.mean.numpy()),
        table("float", "sttd_scale", network.scale.numpy()),
    ]
    path.write_text("".join(parts))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, nargs="+")
    parser.add_argument("--valid", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="the newest weights too, after each epoch")
    parser.add_argument("--seed", type=int, default=1)
    write(train(parser.parse_args()), parser.parse_args().out)


if __name__ == "__main__":
    main()
