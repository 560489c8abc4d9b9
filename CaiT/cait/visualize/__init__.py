"""What a model looks at: as numbers (`maps`), where they come from (`sources`), and as pictures (`draw`, `job`)."""

OF_IMAGES = ("class_attention", "rollout", "talking_heads")  # a picture for each image
FIGURES = (*OF_IMAGES, "layer_scale")
