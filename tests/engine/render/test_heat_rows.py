import pytest

from comfy_revelio.render.heat_rows import cell_size, evenly_spread
from comfy_revelio.render.names import hook_point_name


@pytest.mark.parametrize("grid", [(8, 8), (6, 12), (12, 6), (2, 16), (16, 2)])
def test_cells_have_the_aspect_of_the_recorded_grid(grid):
    height, wide = cell_size(grid, None)
    assert max(height, wide) == 160
    assert height * grid[1] == pytest.approx(wide * grid[0], abs=grid[0] + grid[1])


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [(20, 4, [0, 6, 13, 19]), (3, 8, [0, 1, 2]), (1, 8, [0]), (20, 1, [19]), (50, 2, [0, 49])],
)
def test_steps_are_spread_from_first_to_last(count, wanted, chosen):
    assert evenly_spread(count, wanted) == chosen


def test_hook_points_have_names_for_people():
    assert hook_point_name("middle_block.1") == "middle block (middle_block.1)"
    assert hook_point_name("output_blocks.3.1") == "up block 3 (output_blocks.3.1)"
    assert hook_point_name("double_blocks.18") == "double block 18, image (double_blocks.18)"
    assert hook_point_name("noise_refiner.1") == "noise_refiner.1"
