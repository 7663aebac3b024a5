"""The bundle that ships, put together and proved."""
