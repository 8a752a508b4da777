"""The student, its losses and its optimizer."""
