"""Policysmith: train, align, steer and evaluate policies of every kind.

The folders are the stages of one thread, lowest first:

    common, sandbox                  what everything stands on
    objectives, networks, worlds     pure losses; bodies without a job; environments
    policies                         what acts
    experience                       what is learnt from
    rewards                          what is good
    training                         learners, the loop, run state, run directories
    steering, synthesis              acting better with frozen weights; making more experience
    evaluation                       measuring, statistics, reports
    systems                          the published methods, one module each
    claims                           each system's small-scale experiment
    cli                              the command line

A module imports from its own folder and from those above it in this list, never from below it.
"""

__version__ = "0.1.0"
