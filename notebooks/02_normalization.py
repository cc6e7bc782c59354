# %% [markdown]
# # Colour normalisation: taking the stain out of the picture
#
# **After this chapter you can**
#
# - turn colours into amounts of stain by the Beer–Lambert law;
# - explain what Macenko and Reinhard change in an image, and what they need;
# - say what a normaliser must do with a tile that has no tissue.
#
# The paper says "colour normalisation" and does not state the method; the ladder of this book uses Macenko's with the
# published reference, and chapter after chapter says so.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"

# %%
from histotransfer.chapters import begin

root = begin(profile=profile, data_root=data_root, seed=seed, device=device)

# %% [markdown]
# ## Optical density
#
# Light that passes through stain is absorbed in proportion to what is left of it. With intensity $I_0$ before and $I$ after,
#
# $$ \mathrm{OD} = -\ln \frac{I}{I_0} = C\,S, $$
#
# | symbol | meaning | shape |
# |---|---|---|
# | $I$, $I_0$ | intensity after and before the tissue, a channel | $N \times 3$ |
# | $C$ | concentrations: how much hematoxylin and eosin | $N \times 2$ |
# | $S$ | stain matrix: each stain's colour in optical density | $2 \times 3$ |
#
# Colours multiply, densities add. So two stains span a **plane** in density space, and the pixels of a slide lie near it
# {cite}`ruifrok2001`.

# %%
from histotransfer.datasets import breakhis
from histotransfer.stain import optical_density
from histotransfer.tiles import decode

table = breakhis.load(root)
at_200 = table[table["magnification"] == 200]
first = at_200.groupby("group")["path"].first()
tiles = [decode(path) for path in first.head(4)]
density = optical_density(tiles[0])
density.shape, density.min().round(3), density.max().round(3)

# %% [markdown]
# ## Macenko: the plane from the pixels
#
# Macenko {cite}`macenko2009` finds the plane as the two leading eigenvectors of the densities' covariance, looks at
# the angles of the pixels inside it, and takes the extreme ones (robustly: the 1st and 99th percentile) as the two stains.

# %%
import numpy as np

from histotransfer.stain import Macenko, Reinhard

macenko, reinhard = Macenko(), Reinhard()
stains = macenko.stain_matrix(tiles[0])
stains.round(3)

# %% [markdown]
# On phantom tissue the truth is known, so the error is an angle:

# %%
import pandas as pd

from histotransfer.datasets import phantom
from histotransfer.stain import angle_between

errors = []
for patient in range(12):
    field = phantom.breast_image(patient, 200, 0, seed=seed)
    found = macenko.stain_matrix(field.image)
    errors.append(map(angle_between, found, field.stain_matrix))
table_of_errors = pd.DataFrame(errors, columns=["hematoxylin", "eosin"])
table_of_errors.describe().loc[["min", "50%", "max"]].round(1)

# %% [markdown]
# ## Four patients, before and after
#
# Reinhard {cite}`reinhard2001` needs no stains: it shifts and scales the three channels of a perceptual colour space to a
# reference's mean and spread. Both use one **published reference** here; nothing is fitted to test patients.

# %% mystnb={"figure": {"name": "fig-normalised", "caption": "Four patients as scanned (top), after Macenko (middle) and after Reinhard (bottom)."}, "image": {"alt": "Three rows of four tissue fields: colours differ between patients in the top row and are alike in the two rows below."}}
from histotransfer.figures import gallery

rows = [tiles, macenko.transform(tiles), reinhard.transform(tiles)]
names = ["as scanned", "Macenko", "Reinhard"]
figure = gallery(
    [tile for row in rows for tile in row],
    [name for name in names for _ in tiles],
)

# %% [markdown]
# How far apart are patients, before and after? The spread of the patients' mean colours, in CIELAB units:

# %%
from histotransfer.stain import to_lab

every = [decode(path) for path in at_200.groupby("group")["path"].first()]
spread = {}
for name, method in zip(names, [None, macenko, reinhard], strict=True):
    images = method.transform(every) if method else every
    means = [to_lab(image).mean(axis=(0, 1)) for image in images]
    spread[name] = np.std(means, axis=0)
pd.DataFrame(spread, index=["L*", "a*", "b*"]).T.round(1)

# %% [markdown]
# ## Tiles that must be left alone
#
# A tile of glass has no stain to estimate. Unguarded implementations turn it black or purple, or stop with an error. Here
# a tile that fails a guard is returned as it was, and named with the reason.

# %%
glass = np.full((64, 64, 3), 243, dtype=np.uint8)
speck = glass.copy()
speck[30, 30] = (120, 60, 140)
pink = np.full((64, 64, 3), (230, 150, 190), dtype=np.uint8)
hard, names, fallbacks = (
    [glass, speck, pink],
    ["glass", "speck", "pink"],
    [],
)
done = macenko.transform(hard, names=names, fallbacks=fallbacks)
pd.DataFrame(fallbacks)

# %%
all(map(np.array_equal, hard, done))

# %% [markdown]
# ## Take home
#
# - Density is where stains add; two stains make a plane.
# - Macenko separates stains, Reinhard matches statistics; both are deterministic maps from a tile and a reference.
# - A normaliser is judged first by what it does to the tiles it cannot handle.
#
# Whether normalisation *helps* a classifier is a question for measurement, not for this chapter's pictures.
#
# **Further reading:** {cite}`macenko2009`, {cite}`reinhard2001`, {cite}`vahadane2016`.
