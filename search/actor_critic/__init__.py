"""Parts of the actor-critic strategy `ddpg`: what an episode is, its reward, and what learns."""
