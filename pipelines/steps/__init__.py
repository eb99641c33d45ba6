"""What each task of a pipeline does, as plain functions over plain arguments; nothing here knows KFP."""
