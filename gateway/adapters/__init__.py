"""Which adapters are on the boxes: what policies name is loaded, what they no longer name is unloaded."""
