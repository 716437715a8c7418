"""The interface of container-layer, over clayer. Written by clayer init skill."""
