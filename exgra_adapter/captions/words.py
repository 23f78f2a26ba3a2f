"""The word lists and patterns of the checks: short, and in one place so that they are easily extended."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_NUMBERS.split())}
VERDICTS = ("yes", "no")
NEGATIONS = _words("no not without none never nor cannot absent absence negative neither lacks lack free")

REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial|language model)"
    r"|\b(?:i|we) (?:am |are )?(?:sorry|unable|cannot|can't|can not|do not|don't|apologi[sz]e)\b"
    r"|\bi'm (?:sorry|unable|not able)"
    r"|\b(?:cannot|unable to|not able to|can't) (?:provide|assist|answer|help|view|access|see the image)"
    r"|\bconsult (?:a|an|your|with)\b|\bmedical advice\b|\bseek (?:medical|professional)"
    r"|\b(?:reference|original|revised|given|provided) (?:answer|question)\b|\bword limit\b|\bthe revision\b",
    re.IGNORECASE,
)

TERM = re.compile(
    r"(?:itis|osis|oma|omas|omata|emia|aemia|pathy|pathies|ectomy|ostomy|otomy|plasty|graphy|gram|scopy|plegia|rrhage"
    r"|rrhagic|rrhea|megaly|penia|algia|ectasis|ectasia|trophy|trophic|sclerosis|stenosis|thorax|edema|oedema|cele"
    r"|lysis|uria|spasm|cyte|cytes|blast|genic|genesis|lith|lithiasis|malacia|phage|phagia|ptosis|rrhexis|stasis"
    r"|plasia)$"
    r"|^(?:cardi|pneum|hepat|nephr|neur|oste|gastr|enteri|entero|derm|hem|haem|thromb|cerebr|crani|encephal|myel|arthr"
    r"|angi|bronch|thorac|abdomin|pulmon|renal|splen|pancrea|cholecyst|cyst|lymph|carcin|metasta|ventric|vascul"
    r"|vertebr|spinal|aort|atri|mediastin|pleur|periton|opaci|calcifi|infiltr|hypo|hyper|isch|infarct|necro|fibro"
    r"|lesion|fractur|tumo|nodul|effusion|emphysem|consolidat|atelect|aneurysm|hernia|abscess|radiograph|ultraso"
    r"|fluorosc|tomograph|contrast|mucos|squamous|epitheli|histolog|eosin|hematoxylin|stain)",
    re.IGNORECASE,
)
"""Classical roots that make a word a medical term: at its end, or at its beginning."""

TERMS = _words(
    """
    left right upper lower bilateral unilateral anterior posterior medial lateral superior inferior proximal distal
    axial coronal sagittal apex base lobe heart lung lungs liver kidney kidneys brain spleen stomach bowel colon rectum
    bladder uterus ovary prostate breast bone bones rib ribs spine skull pelvis chest abdomen neck knee hip shoulder
    wrist ankle hand foot skin eye eyes retina trachea esophagus artery vein vessel vessels muscle tissue gland nerve
    tumor tumour cancer mass cyst lesion nodule edema oedema effusion fracture hemorrhage bleeding infarct infarction
    ischemia stroke embolism fluid air gas gallbladder gallstone gallstones stone stones ulcer polyp abscess hernia
    dense hyperdense hypodense bright dark enhancing enlarged dilated diffuse focal benign malignant acute chronic mri
    xray x-ray ultrasound pet
    """
)
"""Medical terms that no root tells: anatomy, sides, planes, common findings, how they look."""

STOP_WORDS = {
    "en": _words("the is are was were of in on and this that with there it by to from an has have which as at"),
    "de": _words("der die das ist sind und ein eine einen im mit auf von dem den nicht des auch wird bei zu"),
    "fr": _words("le la les est sont et un une dans avec des du sur par ce cette il elle pas qui aux"),
    "es": _words("el la los las es son y un una en con del por que se de al hay esta este"),
    "it": _words("il lo la gli è sono e un una nel nella con del della di che non si questa questo"),
    "pt": _words("o os é são e um uma na com da dos das que não em por esta este"),
}
"""Words that tell a language, for those that share the Latin script; none that English has too."""
