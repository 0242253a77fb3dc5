import torch

from cbtalk.model.keypoints import Keypoints
from cbtalk.train.equivariance import ThinPlate, equivariance_losses


def transform(batch: int = 2) -> ThinPlate:
    random = ThinPlate.random(batch, affine=0.05, thin_plate=0.05, points=5, generator=torch.Generator().manual_seed(0))
    return ThinPlate(random.theta.double(), random.control_params.double())


def test_jacobian_is_the_derivative_of_the_coordinates() -> None:
    plate, points = transform(), torch.rand(2, 7, 2, dtype=torch.float64) * 2 - 1
    jacobian = plate.jacobian(points)
    step = 1e-6
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        slope = (plate.coordinates(points + shift) - plate.coordinates(points - shift)) / (2 * step)
        torch.testing.assert_close(jacobian[..., axis], slope, rtol=1e-6, atol=1e-7)


def test_second_derivative_is_autograds() -> None:
    plate, points = transform(), (torch.rand(2, 3, 2, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(plate.jacobian, (points,))


def test_keypoints_that_follow_the_transform_cost_nothing() -> None:
    plate = transform()
    seen = Keypoints(torch.rand(2, 5, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64).expand(2, 5, 2, 2))
    exact = Keypoints(plate.coordinates(seen.value), plate.jacobian(seen.value) @ seen.jacobian)
    value, jacobian = equivariance_losses(exact, seen, plate)
    assert value < 1e-12 and jacobian < 1e-12
    moved = Keypoints(exact.value + 0.1, exact.jacobian)
    assert abs(equivariance_losses(moved, seen, plate)[0].item() - 0.1) < 1e-12


def test_identity_transform_leaves_a_smooth_image_alone() -> None:
    identity = ThinPlate(torch.eye(2, 3).expand(1, 2, 3), torch.zeros(1, 25))
    ramp = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    torch.testing.assert_close(identity.warp(ramp), ramp, rtol=0, atol=0.04)
