"""The media plane: sources, the hub and the muxers. Knows no HTTP server, no user and no database."""
