"""Student networks: the widths that keep the most saliency within the limits of the devices."""
