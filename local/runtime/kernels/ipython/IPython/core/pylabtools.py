"""matplotlib looks here for a GUI to integrate with; a kernel without a display has none."""

backend2gui = {}
backends = {}
