"""The contracts, as classes of checks that the project runs on its own rows and that authors of plug-ins can run on theirs."""
