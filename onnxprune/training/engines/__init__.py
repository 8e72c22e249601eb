"""The engines that run training steps."""
