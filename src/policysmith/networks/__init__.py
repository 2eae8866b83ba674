"""Layer 2: bodies without a job: U-Nets, MLPs, noise processes and samplers, normalisers, averages."""
