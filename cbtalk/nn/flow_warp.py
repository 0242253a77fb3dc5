"""Flow warping as a module."""

from torch import Tensor, nn

from cbtalk.ops import flow_warp


class FlowWarp(nn.Module):
    """Samples a feature map where a flow points and multiplies by an occlusion map: `cbtalk.ops.flow_warp`.

    Args:
        size: (Ho, Wo) of the output; by default that of the feature.
        align_corners: whether -1 and 1 are the centres of the feature's corner pixels, or their outer edges.
        backend: "auto", "cpp", "cuda", "triton" or "reference".
    """

    def __init__(
        self, *, size: tuple[int, int] | None = None, align_corners: bool = True, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.size = size
        self.align_corners = align_corners
        self.backend = backend

    def forward(self, feature: Tensor, flow: Tensor, occlusion: Tensor | None = None) -> Tensor:
        """The warped feature.

        Args:
            feature: (B, C, H, W), or (1, C, H, W) for every flow of the batch, without a copy.
            flow: (B, h, w, 2), or (B, N, h, w, 2) to sample each feature by N flows; (x, y) in [-1, 1].
            occlusion: (B, 1, h', w') or None; shared by the N flows.

        Returns:
            (B, C, Ho, Wo), or (B, N, C, Ho, Wo), in the dtype and the memory format of the feature.

        Raises:
            ValueError: shapes or dtypes that do not fit together.
            BackendError: the backend asked for cannot run; the message is the reason.
        """
        if feature.dim() == 4 and feature.shape[0] == 1:
            feature = feature.expand(flow.shape[0], -1, -1, -1)
        return flow_warp(
            feature, flow, occlusion, size=self.size, align_corners=self.align_corners, backend=self.backend
        )

    def extra_repr(self) -> str:
        """The options, for `print`."""
        return f"size={self.size}, align_corners={self.align_corners}, backend={self.backend!r}"
