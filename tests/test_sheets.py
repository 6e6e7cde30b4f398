import pytest
import torch

from studylib import faces, sheets
from studylib.vision import torchvision
from tests.test_embed import make


def test_sheet_shows_one_face_a_person_with_credit(orl):
    sheet = sheets.contact_sheet(orl, most=16)
    assert sheet.picture.size == (8 * 114 + 2, 2 * 114 + 2)
    page = sheet._repr_html_()
    assert "16 of 400 faces" in page and "Samaria" in page and 'src="data:image/jpeg' in page
    first = torch.tensor([*sheet.picture.crop((2, 2, 114, 114)).tobytes()]).view(112, 112, 3)
    assert torch.equal(first.byte(), orl.images[0].permute(1, 2, 0))


def test_pictures_that_may_not_be_shown_are_not():
    own = make()
    sheet = sheets.contact_sheet(faces.Faces(own.images, own.table, "folder"))
    assert sheet.picture is None and "not shown in published pages" in sheet._repr_html_()
    assert "img" not in sheet._repr_html_()


def test_noise_needs_no_licence():
    assert "Noise" in repr(sheets.contact_sheet(make()))


@pytest.mark.parametrize(("n", "channels", "columns"), [(5, 3, 3), (2, 1, 8), (1, 3, 1), (6, 3, 3)])
def test_the_grid_is_torchvisions(n, channels, columns):
    images = torch.randint(0, 256, (n, channels, 6, 5), generator=torch.Generator().manual_seed(n))
    images = images.to(torch.uint8)
    theirs = torchvision.utils.make_grid(images, columns, padding=2, pad_value=255)
    if n > 1:
        assert torch.equal(sheets._grid(images, columns), theirs)
    else:  # theirs puts no paper around a single one
        assert torch.equal(sheets._grid(images, columns)[:, 2:-2, 2:-2], theirs)
