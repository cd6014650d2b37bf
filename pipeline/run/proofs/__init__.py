"""What a stage is held to after it: that its file became faster."""
