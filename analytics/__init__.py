"""Consumers of streams: scene analysis on sampled keyframes. Knows no user and no HTTP."""
