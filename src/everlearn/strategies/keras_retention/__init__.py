"""What Keras models are held to: each method of this room, as a holder of a Keras model."""
