"""A run's networks and their training step: three optimisers, moving average, guards, and the state to resume from."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cbtalk.errors import ConfigError
from cbtalk.model.config import TalkerConfig
from cbtalk.model.discriminator import PatchDiscriminator
from cbtalk.model.talker import Talker
from cbtalk.nn.processes import place
from cbtalk.train import exchange
from cbtalk.train.adversarial import discriminator_losses
from cbtalk.train.batch_norm import synchronise
from cbtalk.train.config_text import to_plain
from cbtalk.train.data import PairLoader, joined
from cbtalk.train.draws import batch_generator, to_device
from cbtalk.train.equivariance import ThinPlate
from cbtalk.train.initial import start_from
from cbtalk.train.losses import Draws, Objective
from cbtalk.train.perceptual import load_perceptual
from cbtalk.train.sections import OptimizerConfig, TrainConfig
from cbtalk.train.timing import PartTimer

TRANSFORM_STREAM, WINDOW_STREAM = 1, 2  # beside the loader's own


def learning_rate(config: TrainConfig, finished: int) -> float:
    """The rate of the step that follows `finished` steps."""
    settings = config.optimizer
    warmup = min(1.0, (finished + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "cosine":
        fall = (1 + math.cos(math.pi * min(1.0, finished / config.run.steps))) / 2
        factor = settings.final + (1 - settings.final) * fall
    else:
        factor = settings.gamma ** sum(finished >= milestone for milestone in settings.milestones)
    return settings.learning_rate * warmup * factor


class Trainer:
    """The networks, their optimisers and everything that a checkpoint holds.

    Where several processes train together, each has all of it, alike, and a share of the pairs.

    Args:
        loader: gives the pairs of frames.
    """

    def __init__(self, config: TrainConfig, loader: PairLoader, device: torch.device) -> None:
        self.config = config
        self.loader = loader
        self.device = device
        torch.manual_seed(config.run.seed)
        self.talker = Talker(config.model).to(self.device).train()
        freeze(self.talker, config.run.frozen)
        self.average = copy.deepcopy(self.talker).requires_grad_(False).eval()
        self.discriminator = PatchDiscriminator(config.model).to(self.device).train()
        self.discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.run.synchronise_batch_norm and place()[1] > 1:
            synchronise(self.talker)
            synchronise(self.discriminator)
        self.networks: dict[str, nn.Module] = {
            "net_g": self.talker.net_g,
            "motion_estimator": self.talker.motion_estimator,
            "net_d": self.discriminator,
        }
        self._frozen = {name for name, network in self.networks.items() if not _learns(network)}
        self._check_frozen()
        self.optimizers = {name: _adam(network, config.optimizer) for name, network in self.networks.items()}
        seen = config.perceptual
        perceptual = load_perceptual(seen.weights, seen.scales, seen.window) if config.loss.perceptual else None
        if perceptual is not None:
            perceptual.to(self.device)
            if config.run.precision == "bf16":  # frozen weights: autocast would cast them anew in every call
                perceptual.vgg.convolutions.to(torch.bfloat16)
        self.objective = Objective(config, perceptual)
        self.timer = PartTimer(device)
        self.step = 0
        self.whole = True  # False while a step changes the networks: what is saved then would be half of it
        self.bad_steps = torch.zeros((), dtype=torch.int64, device=device)  # in a row

    def train_step(self) -> dict[str, Tensor]:
        """Draws a batch and updates every network; returns the figures, on the device: nothing in a step waits for it.

        A step whose losses or gradients are not finite changes nothing, and counts in `bad_steps`, those in a row.
        """
        buffers = _running_statistics(self.networks)
        saved = [buffer.clone() for buffer in buffers]
        rate = learning_rate(self.config, self.step)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate
        try:
            figures = self._exchanged(self._detector_backward() if self.detector_alone else self._backward())
        except BaseException:
            for buffer, before in zip(buffers, saved, strict=True):
                buffer.copy_(before)
            raise
        self.whole = False
        with self.timer.part("optimizer"):
            trained = self._trained()
            norms = {f"grad_norm_{name}": self._gradient_norm(self.networks[name]) for name in trained}
            bad = ~torch.stack([figures["total"], *norms.values()]).isfinite().all()
            for name in trained:
                self.optimizers[name].found_inf = bad.float()  # type: ignore[attr-defined]
                self.optimizers[name].step()
            for buffer, before in zip(buffers, saved, strict=True):
                buffer.copy_(torch.where(bad, before, buffer))
            self._update_average(bad)
            self.bad_steps = torch.where(bad, self.bad_steps + 1, 0)
        self.step += 1
        self.whole = True
        return {**figures, **norms, "bad_steps": self.bad_steps}

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator takes part in the next step."""
        return self.config.adversarial.weight > 0 and self.step >= self.config.adversarial.after_step

    @property
    def detector_alone(self) -> bool:
        """Whether the next step trains the keypoint detector and nothing else."""
        return self.step < self.config.guidance.steps

    def _check_frozen(self) -> None:
        """Raises ConfigError where a part that is to learn is frozen."""
        config, talker = self.config, self.talker
        if config.guidance.steps and not _learns(talker.motion_estimator.kp_detector):
            raise ConfigError(
                "run.frozen keeps the keypoint detector, which guidance.steps are to train; set them to 0"
            )
        if config.adversarial.weight and not talker.net_g.generator.last_weight.requires_grad:
            raise ConfigError("run.frozen keeps the generator, which learns from adversarial.weight; set it to 0")

    def _trained(self) -> list[str]:
        """The networks that the next step changes."""
        if self.detector_alone:
            return ["motion_estimator"]
        return [name for name in self.networks if name not in self._frozen and (name != "net_d" or self.adversarial)]

    def _detector_backward(self) -> dict[str, Tensor]:
        """Gradients of the keypoint detector from several batches in one; returns its losses."""
        parts = self.config.guidance.batches
        with self.timer.part("data"):
            batch = joined([self.loader.batch(self.step * parts + part) for part in range(parts)])
            draws = self._draws(self.step, parts)
        with self.timer.part("forward"), self._autocast():
            total, terms = self.objective.of_detector(self.talker, batch, draws)
        with self.timer.part("backward"):
            total.backward()
        return {**terms, "total": total.detach()}

    def _backward(self) -> dict[str, Tensor]:
        """Gradients of all networks from one batch; returns the mean of every loss over its parts."""
        parts = self.config.run.micro_batches
        collected: list[dict[str, Tensor]] = []
        for part in range(parts):
            with self.timer.part("data"):
                number = self.step * parts + part
                batch = self.loader.batch(number)
                draws = self._draws(number)
            discriminator = self.discriminator.requires_grad_(False) if self.adversarial else None
            with self.timer.part("forward"), self._autocast():
                losses = self.objective(self.talker, batch, draws, discriminator)
            with self.timer.part("backward"):
                (losses.total / parts).backward()
            collected.append({**losses.terms, "total": losses.total.detach()})
            if self.adversarial:
                with self.timer.part("discriminator"):
                    collected[-1] |= self._discriminator_backward(
                        batch.driving, losses.output.prediction.detach(), parts
                    )
        return {name: torch.stack([terms[name] for terms in collected]).mean() for name in collected[0]}

    def _exchanged(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """Averages over the processes what the backward pass left; returns the figures, averaged as well."""
        if place()[1] == 1:
            return figures
        with self.timer.part("exchange"):
            parameters = [parameter for name in self._trained() for parameter in self.networks[name].parameters()]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            statistics = [buffer for buffer in _running_statistics(self.networks) if buffer.is_floating_point()]
            values = torch.stack([value.detach().float() for value in figures.values()])
            exchange.average([*gradients, *statistics, values])
        return dict(zip(figures, values.unbind(), strict=True))

    def _draws(self, number: int, batches: int = 1) -> Draws:
        """Random draws for batch `number`, of several loader's batches: the transform on the device."""
        settings, share = self.config.equivariance, self.loader.sampler.share
        size = self.loader.size * batches
        drawn = ThinPlate.random(
            size,
            affine=settings.affine,
            thin_plate=settings.thin_plate,
            points=settings.points,
            generator=batch_generator(self.config.run.seed, number, TRANSFORM_STREAM),
        )
        window = torch.rand(size, 3, generator=batch_generator(self.config.run.seed, number, WINDOW_STREAM))
        *transform, window = (to_device(share.of(tensor, batches), self.device) for tensor in (*drawn, window))
        return Draws(ThinPlate(*transform), window)

    def _discriminator_backward(self, real: Tensor, fake: Tensor, parts: int) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(True)
        with self._autocast():
            of_real, of_fake = discriminator_losses(self.discriminator(real), self.discriminator(fake))
        ((of_real + of_fake) / parts).backward()
        return {"disc_real": of_real.detach(), "disc_fake": of_fake.detach()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.run.precision == "bf16")

    def _gradient_norm(self, network: nn.Module) -> Tensor:
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.config.optimizer.clip_norm is not None:
            torch._foreach_mul_(gradients, (self.config.optimizer.clip_norm / (norm + 1e-6)).clamp(max=1))
        return norm

    def _update_average(self, bad: Tensor) -> None:
        weight = (1 - self.config.ema.decay) * (~bad).float()
        for name in ("net_g", "motion_estimator"):
            averaged = name == "net_g" or self.config.ema.motion_estimator
            ours, theirs = _entries(getattr(self.average, name)), _entries(self.networks[name])
            if averaged:
                change = torch._foreach_sub(theirs[True], ours[True])
                torch._foreach_mul_(change, weight)
                torch._foreach_add_(ours[True], change)
            else:
                torch._foreach_copy_(ours[True], theirs[True])
            if ours[False]:
                torch._foreach_copy_(ours[False], theirs[False])

    def start_from(self, path: Path) -> str:
        """Takes what fits of a weights file, before the first step; returns a line that says how much."""
        report = start_from(self.talker, path)
        self.average.load_state_dict(self.talker.state_dict())
        return report

    def state(self) -> dict[str, Any]:
        """Everything that a later run needs to go on as if it had never stopped."""
        return {
            "step": self.step,
            "model": self.config.model.to_dict(),
            "config": to_plain(self.config),
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "average": self.average.state_dict(),
            "bad_steps": self.bad_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over a `state`. Raises ConfigError where it belongs to a model of other sizes."""
        if TalkerConfig.from_dict(state["model"]) != self.config.model:
            raise ConfigError("the checkpoint belongs to a model of other sizes; choose another output folder")
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
            _load_optimizer(self.optimizers[name], state["optimizers"][name])
        self.average.load_state_dict(state["average"])
        self.step = state["step"]
        self.bad_steps = state["bad_steps"].to(self.device)


def freeze(talker: Talker, parts: Sequence[str]) -> None:
    """Let parts of a talker stay as they are, running statistics included; ConfigError for a part that it lacks."""
    for name in parts:
        try:
            part = talker.get_submodule(name)
        except AttributeError:
            known = "motion_estimator, net_g.encoder, net_g.generator and the like"
            raise ConfigError(f"run.frozen: the talker has no part {name!r}; it has {known}") from None
        part.requires_grad_(False).eval()


def _learns(network: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in network.parameters())


def _load_optimizer(optimizer: torch.optim.Adam, state: dict[str, Any]) -> None:
    """Takes over the moments; the settings stay those of the configuration."""
    settings = [{**group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update({name: own[name] for name in ("betas", "eps")})


def _adam(network: nn.Module, config: OptimizerConfig) -> torch.optim.Adam:
    return torch.optim.Adam(
        network.parameters(), lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True
    )


def _entries(network: nn.Module) -> dict[bool, list[Tensor]]:
    """Parameters and buffers, running statistics included: those of floating point under True, counters under False."""
    entries = list(network.state_dict().values())
    return {
        floating: [entry for entry in entries if entry.is_floating_point() is floating] for floating in (True, False)
    }


def _running_statistics(networks: dict[str, nn.Module]) -> list[Tensor]:
    """The statistics that a forward pass changes: a pass that is thrown away must not leave a trace in them."""
    named = (entry for network in networks.values() for entry in network.named_buffers())
    return [buffer for name, buffer in named if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
