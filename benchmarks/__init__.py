"""What training on a scaffold costs in time and memory, beside full training, PEFT and loralib."""
