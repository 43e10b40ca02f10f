"""The distortions of `mnist train` in PyTorch: where a new copy of an image takes its pixels from."""
import math

import torch
from torch.nn.functional import affine_grid

# The standard deviation of a sum of cubic B-splines with unit noise at the knots of a plane: the integral of one's square.
OF_UNIT_NOISE = 151 / 315


def amplitude(sigma, alpha):
    """Of the noise at the knots of `basis(sigma)`, for displacements as Simard's `sigma` and `alpha` give them."""
    return alpha / math.sqrt(3) / (2 * sigma * math.sqrt(math.pi)) / OF_UNIT_NOISE


def basis(sigma, rows=None):
    """(rows, 28): cubic B-splines with the smoothness of a Gaussian of standard deviation `sigma`; rows of zeros fill up."""
    spacing = sigma * math.sqrt(3)
    cells = max(1, math.ceil(27 / spacing))
    first = (cells - 27 / spacing) / 2
    u = (first + torch.arange(28) / spacing - (torch.arange(cells + 3)[:, None] - 1)).abs()
    splines = torch.where(u < 1, 2 / 3 - u**2 + u**3 / 2, (2 - u).clamp(min=0) ** 3 / 6)
    return torch.nn.functional.pad(splines, (0, 0, 0, (rows or len(splines)) - len(splines)))


def affine_places(n, within):
    """(n, 28, 28, 2), in grid_sample's coordinates, from -1 to 1 over 28 pixels; `within(key)` draws n values."""
    angle, width, height = within("rotation") * (math.pi / 180), 1 + within("scale"), 1 + within("scale")
    slant, right, down = within("shear"), within("shift"), within("shift")
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([torch.stack([cos * width, (cos * slant - sin) * height, right / 14], 1),
                         torch.stack([sin * width, (sin * slant + cos) * height, down / 14], 1)], 1)
    return affine_grid(theta, (n, 1, 28, 28), align_corners=False)
