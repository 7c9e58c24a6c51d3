"""What all our trees and forests are made of: nodes, statistics at the leaves, splits."""
