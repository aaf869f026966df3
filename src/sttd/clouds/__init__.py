"""Cloud providers: engines that run on other machines."""
