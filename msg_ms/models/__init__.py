"""The models, from the bottom up: windows, layers, attention, block, stages, backbone, msg_transformer, features."""
