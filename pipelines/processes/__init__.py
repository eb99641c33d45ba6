"""The services that commands start as processes of their own."""
