"""The back ends: each gives the stages from `tile` IR to a machine's binary."""
