"""The model, leaf to root: windows, layers, attention, msg_transformer, features, variants, in_mindcv."""
