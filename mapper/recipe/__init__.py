"""Recipes: which sources, bands, composites and model make a product. Data only.

A recipe is a YAML file under `pipelines/` or any path. Unknown keys are refused.
"""

from mapper.recipe.compositing import FARTHEST, MADS, BestScore, Compositing
from mapper.recipe.load import data_directory, load_recipe, shipped_recipes
from mapper.recipe.masks import CloudMask, Mask, ModelMask, SclMask
from mapper.recipe.predict import Predict
from mapper.recipe.recipe import Composite, Recipe, digest_of
from mapper.recipe.sources import (
    EARTH_SEARCH,
    PLANETARY_COMPUTER,
    Bands,
    ElevationSource,
    ImagerySource,
    LayerSource,
    Resampling,
    Sentinel1Source,
    Sentinel2Source,
    Source,
    layers_of,
    sure_layers,
)
from mapper.recipe.tiles import TileService
from mapper.recipe.training import Train

__all__ = [
    "EARTH_SEARCH",
    "FARTHEST",
    "MADS",
    "PLANETARY_COMPUTER",
    "Bands",
    "BestScore",
    "CloudMask",
    "Composite",
    "Compositing",
    "ElevationSource",
    "ImagerySource",
    "LayerSource",
    "Mask",
    "ModelMask",
    "Predict",
    "Recipe",
    "Resampling",
    "SclMask",
    "Sentinel1Source",
    "Sentinel2Source",
    "Source",
    "TileService",
    "Train",
    "data_directory",
    "digest_of",
    "layers_of",
    "load_recipe",
    "shipped_recipes",
    "sure_layers",
]
