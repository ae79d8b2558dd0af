"""Proof of a product: it is run before it is handed over (docs/proof.md)."""

from onnxq.measure.proof.prove import prove, proven
from onnxq.measure.proof.record import Proof, ProofFinding, ProofKeywords, ProofOptions
from onnxq.measure.proof.subject import Subject

__all__ = ["Proof", "ProofFinding", "ProofKeywords", "ProofOptions", "Subject", "prove", "proven"]
